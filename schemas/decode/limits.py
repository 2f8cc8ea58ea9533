"""Bound what a decoder accepts. Each bound has its own error; the defaults are generous for honest producers."""

from pydantic import BaseModel, ConfigDict, Field

_MIB = 1024 * 1024


class Limits(BaseModel):
    """Bounds on what is read from one export file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    record_bytes: int = Field(default=16 * _MIB, gt=0, description="Longest record: a message, or a line of JSON.")
    file_bytes: int = Field(default=64 * 1024 * _MIB, gt=0, description="Largest file, as it lies on disk.")
    unpacked_bytes: int = Field(default=256 * 1024 * _MIB, gt=0, description="Most bytes that a compressed file may unpack to.")
    compression_ratio: int = Field(default=200, gt=1, description="Largest ratio of unpacked to packed bytes, beyond 1 MiB.")
    string_bytes: int = Field(default=1 * _MIB, gt=0, description="Longest string.")
    nesting: int = Field(default=64, gt=0, description="Deepest nesting of a JSON record.")
    elements: int = Field(default=200_000, gt=0, description="Most elements of one list or map of a record.")
    json_file_bytes: int = Field(default=64 * _MIB, gt=0, description="Largest Simic snapshot.")
    parquet_row_group_rows: int = Field(default=16_777_216, gt=0, description="Most rows of one row group of a Parquet file.")
    resync_bytes: int = Field(default=256 * 1024, gt=0, description="Bytes that are searched for the next record after damage.")
    chunk_records: int = Field(default=16_384, gt=0, description="Records that are decoded at once.")
    chunk_bytes: int = Field(default=64 * _MIB, gt=0, description="Bytes that are decoded at once.")
