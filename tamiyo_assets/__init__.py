"""Schedule everything with Dagster: assets, checks, sensors and jobs, thin over `schemas`, `lake` and `gnn`."""
