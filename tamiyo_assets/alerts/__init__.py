"""Feed alerts from Dagster's event log, and deliver them."""
