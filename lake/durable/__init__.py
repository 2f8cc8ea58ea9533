"""Files that appear whole or not at all, and strict JSON."""
