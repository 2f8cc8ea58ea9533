"""The Dagster code location and the `tamiyo` command: thin assets over `schemas` and `gnn`."""
