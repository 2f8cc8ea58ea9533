"""The panel: what a home says of itself, gathered, judged, and shown as one HTML page and as Prometheus metrics. No dagster."""
