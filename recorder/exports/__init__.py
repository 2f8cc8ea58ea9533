"""Where the recorder's records go: the exports layout of contracts.md, one whole file at a time."""

from recorder.exports.tables import parquet_files
from recorder.exports.writers import FORMATS, Record, encode, json_line, write_whole

__all__ = ["FORMATS", "Record", "encode", "json_line", "parquet_files", "write_whole"]
