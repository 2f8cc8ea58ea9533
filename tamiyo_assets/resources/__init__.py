"""Define the resources of assets, checks and sensors: exports, tables, alerts, metrics."""
