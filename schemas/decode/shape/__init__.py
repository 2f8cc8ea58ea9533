"""Contract rows as columns, and what is collected beside them."""
