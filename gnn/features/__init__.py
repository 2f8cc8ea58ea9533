"""Registries, norms, encodings and coverage: contract rows to measured features and masks."""
