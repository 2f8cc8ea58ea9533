"""Gather, judge and show the state of a home, as one HTML page and as Prometheus metrics. No Dagster."""
