"""Replay rejects: decode kept records again after a fix, in one step that loses no record."""
