"""Store Delta tables: one atomic commit a write, with digests of the content."""
