"""Replay of rejects: kept records decoded again after a fix, in one step that conserves every record."""
