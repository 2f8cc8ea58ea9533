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
# files into which a large table is cut: replacing a run rewrites the files that hold its rows
FILES: Final = 64
SMALLEST: Final = 1 << 20  # bytes, by the writer's estimate; smaller files are never cut
_ROW_BYTES: Final = 128  # rough size of a row in a file
_UNIQUE = frozenset({"packet_id", "command_id", "report_id"})  # texts that hardly repeat


def configuration(schema: pa.Schema) -> dict[str, str]:
    """Return the properties of a new table.

    A pinned version needs its commit log, so only `lake.upkeep` cleans logs, and only if no pin is older. Opening a table reads
    the commits since the newest checkpoint one by one, and many small exports make many commits. It also reads the statistics
    of every file, so these cover only the training run, the one column that helps to choose files.
    """
    statistics = (
        {"delta.dataSkippingStatsColumns": SCOPE} if SCOPE in schema.names else {"delta.dataSkippingNumIndexedCols": "0"}
    )
    return {"delta.enableExpiredLogCleanup": "false", "delta.checkpointInterval": "10", **statistics}


def layout(schema: pa.Schema) -> "WriterProperties":
    """Return how Parquet files are written: texts with dictionaries, since they repeat, and numbers without.

    Measured numbers hardly repeat: their dictionary would take half of the whole write, and be given up once it is full.
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
    """Return the size in bytes at which a new file begins, for a table that gets `rows` more rows."""
    return max(SMALLEST, (stored_bytes(table) + rows * _ROW_BYTES) // FILES)


def stored_bytes(table: "DeltaTable | None") -> int:
    """Return the total size in bytes of a table's files."""
    return 0 if table is None else sum(pa.table(table.get_add_actions()).column("size_bytes").to_pylist())


def _texts(path: str, kind: pa.DataType) -> Iterator[str]:
    """Yield the paths of text leaves below a Parquet column."""
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
    """Return the rows with an additional column: the bucket of their training run."""
    if isinstance(rows, pa.Table):
        return rows.append_column(_BUCKET, buckets_of(rows.column(SCOPE).combine_chunks()))
    return pa.RecordBatchReader.from_batches(rows.schema.append(_BUCKET), _batches_with_buckets(rows))


def _batches_with_buckets(rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    for batch in rows:
        yield batch.append_column(_BUCKET, buckets_of(batch.column(SCOPE)))


def buckets_of(runs: pa.Array) -> pa.Array:
    """Return the bucket (int32 [n]) of each of n training runs; NULL has the bucket of ""."""
    coded = pc.fill_null(runs, "").dictionary_encode()
    of_words = np.array([0, *(bucket_of(run) for run in coded.dictionary.to_pylist())], dtype=np.int32)
    return pa.array(of_words[coded.indices.to_numpy() + 1])


def stored_schema(table: "DeltaTable") -> pa.Schema:
    """Return the Arrow schema of a table's rows, without the bucket column by which its files are laid out."""
    schema = pa.schema(table.schema().to_arrow())
    return pa.schema([field for field in schema if field.name != BUCKET_COLUMN])


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return `rows` with exactly the columns of `schema`; a column that an older version lacks is NULL."""
    if rows.schema.equals(schema):
        return rows
    columns = [
        rows.column(f.name).cast(f.type) if f.name in rows.column_names else pa.nulls(rows.num_rows, f.type) for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
