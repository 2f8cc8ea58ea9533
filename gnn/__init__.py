"""Contract rows -> graphs -> model -> decisions. Imports `schemas` and nothing of Dagster."""
