"""Keep registries: append-only vocabularies that map a category to an index."""
