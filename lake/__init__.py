"""Keep what is on disk: durable files, tables, exports and their ingest, builds, and the warehouse."""
