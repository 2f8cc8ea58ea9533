"""Write exports in the layout of contracts.md, one whole file at a time."""

from recorder.exports.formats import FORMATS, Record, Records, encode, json_line, parquet_files, read_table, write_whole

__all__ = ["FORMATS", "Record", "Records", "encode", "json_line", "parquet_files", "read_table", "write_whole"]
