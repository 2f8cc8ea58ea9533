"""Counts of what was measured, gaps, signals."""
