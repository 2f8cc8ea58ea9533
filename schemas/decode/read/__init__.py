"""Bytes of an export: frames, lines, Parquet, protobuf."""
