"""Configure how a table is written: its Parquet files and its log."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.store.pruning import SCOPE
from schemas.buckets import BUCKET_COLUMN, bucket_of

if TYPE_CHECKING:
    from deltalake import DeltaTable, WriterProperties

_BUCKET: Final = pa.field(BUCKET_COLUMN, pa.int32())
# files that a large table of training runs is cut into: replacing one run rewrites those that hold rows of it
FILES: Final = 64
SMALLEST: Final = 1 << 20  # bytes, as the writer estimates them, that are never cut
_ROW_BYTES: Final = 128  # of a row in a file, roughly
_UNIQUE = frozenset({"packet_id", "command_id", "report_id"})  # texts that hardly repeat


def configuration(schema: pa.Schema) -> dict[str, str]:
    """Return properties of a new table.

    A pinned version needs its commit log: `maintenance` cleans logs, and only if no pin is older. Opening a table reads the
    commits since the newest checkpoint one by one, and many small exports are many commits. It reads the statistics of every
    file too: only those of the training run tell which files to read.
    """
    statistics = (
        {"delta.dataSkippingStatsColumns": SCOPE} if SCOPE in schema.names else {"delta.dataSkippingNumIndexedCols": "0"}
    )
    return {"delta.enableExpiredLogCleanup": "false", "delta.checkpointInterval": "10", **statistics}


def layout(schema: pa.Schema) -> "WriterProperties":
    """Return how Parquet files are written: texts by dictionary, since they repeat; numbers plainly, since measured ones do
    not.

    A dictionary of measured numbers costs half of the whole write and is given up when it is full.
    """
    from deltalake import ColumnProperties, WriterProperties

    texts = [path for one in schema if one.name not in _UNIQUE for path in _texts(one.name, one.type)]
    return WriterProperties(
        compression="ZSTD",
        compression_level=1,
        default_column_properties=ColumnProperties(dictionary_enabled=False),
        column_properties={path: ColumnProperties(dictionary_enabled=True) for path in texts},
    )


def file_bytes(table: "DeltaTable | None", rows: int) -> int:
    """Return the size at which a new file begins, for a table that gets `rows` rows more."""
    return max(SMALLEST, (stored_bytes(table) + rows * _ROW_BYTES) // FILES)


def stored_bytes(table: "DeltaTable | None") -> int:
    """Return bytes of a table's files."""
    return 0 if table is None else sum(pa.table(table.get_add_actions()).column("size_bytes").to_pylist())


def _texts(path: str, kind: pa.DataType) -> Iterator[str]:
    """Yield paths of the Parquet leaves below a column that hold text."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        yield path
    elif pa.types.is_map(kind):
        yield from _texts(f"{path}.key_value.key", kind.key_type)
        yield from _texts(f"{path}.key_value.value", kind.item_type)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _texts(f"{path}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for one in kind:
            yield from _texts(f"{path}.{one.name}", one.type)


def with_buckets(rows: pa.Table | pa.RecordBatchReader) -> pa.Table | pa.RecordBatchReader:
    """Return the rows with the bucket of their training run as one more column."""
    if isinstance(rows, pa.Table):
        return rows.append_column(_BUCKET, buckets_of(rows.column(SCOPE).combine_chunks()))
    return pa.RecordBatchReader.from_batches(rows.schema.append(_BUCKET), _batches_with_buckets(rows))


def _batches_with_buckets(rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    for batch in rows:
        yield batch.append_column(_BUCKET, buckets_of(batch.column(SCOPE)))


def buckets_of(runs: pa.Array) -> pa.Array:
    """Return the bucket (int32 [n]) of each of n training runs, 0 if it has no name."""
    coded = pc.fill_null(runs, "").dictionary_encode()
    of_words = np.array([0, *(bucket_of(run) for run in coded.dictionary.to_pylist())], dtype=np.int32)
    return pa.array(of_words[coded.indices.to_numpy() + 1])
