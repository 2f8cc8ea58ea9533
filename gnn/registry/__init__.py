"""Vocabularies: category -> index, append-only."""
