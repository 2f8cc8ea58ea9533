"""Decode protobuf JSON lines, column by column or record by record."""
