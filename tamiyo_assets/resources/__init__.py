"""What assets, checks and sensors are handed: exports, tables, alerts, metrics."""
