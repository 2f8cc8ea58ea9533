"""Files that appear whole or not at all, append-only journals, digests of files, and strict JSON."""
