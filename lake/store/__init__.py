"""Delta tables: one atomic commit a write, digests of what they hold."""
