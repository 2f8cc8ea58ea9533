"""Keep vocabularies: category -> index, append-only."""
