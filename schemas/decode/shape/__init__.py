"""Shape decoded columns into contract rows, and collect rejects and counts beside them."""
