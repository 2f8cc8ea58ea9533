"""Contract rows of many systems, joined as of each packet."""
