"""Read the bytes of an export: frames, lines, Parquet, protobuf."""
