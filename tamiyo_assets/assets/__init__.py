"""Define the assets, one module per group: each reads, calls a pure function, writes, and reports metadata."""
