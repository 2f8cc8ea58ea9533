"""Store Delta tables: one atomic commit per write, with digests of the content."""
