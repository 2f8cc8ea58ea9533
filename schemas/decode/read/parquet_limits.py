"""Bound the unpacked size of a Parquet file: with compression and dictionaries, a few bytes can stand for gigabytes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.contracts import Reason
from schemas.decode.limits import Limits

# errors that Parquet readers raise for damaged files
UNREADABLE: Final = (pa.ArrowException, ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
_TEXTS: Final = 4  # times `chunk_bytes` that the texts of one batch may take


class Unreadable(ValueError):
    """A Parquet file that is damaged or beyond the limits."""

    def __init__(self, message: str, reason: Reason = Reason.UNREADABLE_FILE) -> None:
        super().__init__(message)
        self.reason = reason


def check_group(path: Path, group: Any, index: int, limits: Limits, declared: Sequence[str]) -> bool:
    """Return whether all columns of row group `index` (its metadata: `group`) can be read, not only the `declared` ones.

    Raises Unreadable if the group is beyond the limits, and the reader's error if a declared column is damaged.
    """
    if group.num_rows > limits.parquet_row_group_rows:
        _refuse("parquet_row_group_rows", limits.parquet_row_group_rows, group.num_rows)
    size = path.stat().st_size
    unpacked = group.total_byte_size
    if unpacked > limits.unpacked_bytes:
        _refuse("unpacked_bytes", limits.unpacked_bytes, unpacked)
    if unpacked > max(limits.chunk_bytes, limits.compression_ratio * size):
        _refuse("compression_ratio", limits.compression_ratio, unpacked // size)
    sound = _is_sound(path, index, declared)
    columns = [group.column(number) for number in range(group.num_columns)]
    if not sound:
        columns = [column for column in columns if column.path_in_schema.partition(".")[0] in declared]
    unpacked = sum(column.total_uncompressed_size for column in columns)
    if unpacked > max(limits.chunk_bytes, limits.compression_ratio * size):
        _refuse("compression_ratio", limits.compression_ratio, unpacked // size)
    most = _TEXTS * limits.chunk_bytes
    texts = [column for column in columns if column.physical_type == "BYTE_ARRAY" and column.has_dictionary_page]
    suspects = _suspects(path, index, texts, most)
    for found in _texts(path, index, suspects, limits):
        if found > most:
            _refuse("chunk_bytes", limits.chunk_bytes, found)
    return sound


def _is_sound(path: Path, index: int, declared: Sequence[str]) -> bool:
    """Return whether every column can be read. Raises the reader's error for a declared column: no row is whole without it."""
    try:
        _probe(path, index, None)
    except UNREADABLE:
        _probe(path, index, list(declared))
        return False
    return True


def _probe(path: Path, index: int, columns: list[str] | None) -> None:
    """Read one row of the columns. Damaged column metadata raises here; in other reads it would abort the process."""
    with pq.ParquetFile(path, pre_buffer=False) as source:
        next(source.iter_batches(batch_size=1, row_groups=[index], columns=columns), None)


def _suspects(path: Path, index: int, columns: list[Any], most: int) -> list[str]:
    """Return the columns whose texts could exceed `most` bytes if each were the longest in the dictionary."""
    large = {c.path_in_schema: c.num_values for c in columns if c.total_uncompressed_size * c.num_values > most}
    found = []
    for name, values in large.items():
        with pq.ParquetFile(path, read_dictionary=[name], pre_buffer=False) as source:
            first = next(source.iter_batches(batch_size=1, row_groups=[index], columns=[name]))
        longest = _longest(first.column(0))
        if longest is None or longest * values > most:
            found.append(name)
    return found


def _longest(array: pa.Array) -> int | None:
    """Return the length of the longest text of the dictionary in an array of any nesting; None if no dictionary was read."""
    if isinstance(array, pa.DictionaryArray):
        longest = pc.max(pc.binary_length(array.dictionary)).as_py()
        return None if longest is None else int(longest)
    inner = [found for part in _parts(array) if (found := _longest(part)) is not None]
    return max(inner, default=None)


def _parts(array: pa.Array) -> list[pa.Array]:
    """Return the child arrays of an array of structs, maps or lists."""
    if isinstance(array, pa.StructArray):
        return list(array.flatten())
    if isinstance(array, pa.MapArray):
        return [array.keys, array.items]
    return [array.values] if isinstance(array, pa.ListArray | pa.LargeListArray) else []


def _refuse(limit: str, most: int, found: int) -> None:
    raise Unreadable(f"{limit}: expected at most {most}, found {found}", Reason.LIMIT_EXCEEDED)


def _texts(path: Path, index: int, columns: list[str], limits: Limits) -> Iterator[int]:
    """Yield the bytes of text in each batch of a row group, counted before dictionaries are expanded."""
    if not columns:
        return
    with pq.ParquetFile(path, read_dictionary=columns) as source:
        for batch in source.iter_batches(batch_size=limits.chunk_records, row_groups=[index], columns=columns):
            yield sum(map(_text_bytes, batch.columns))


def _text_bytes(array: pa.Array) -> int:
    """Return the bytes of the texts in an array of any nesting."""
    if isinstance(array, pa.DictionaryArray):
        lengths = pc.binary_length(array.dictionary)
        return int(pc.sum(lengths.take(array.indices).cast(pa.int64())).as_py() or 0)
    return sum(map(_text_bytes, _parts(array)))
