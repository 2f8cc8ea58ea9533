"""Exports as Parquet: the contract tables' own columns, made by the pipeline's own decoder."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recorder.exports.writers import Record, encode
from schemas.contracts import FOLDERS
from schemas.decode import decode_file

_PROVENANCE = ("export_digest", "position", "arrival")


def parquet_files(folder: str, stem: str, records: Sequence[Record]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of one Parquet file a contract table of the folder's own system; zstd, provenance left out."""
    tables: dict[str, list[pa.Table]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "records.binpb"
        path.write_bytes(encode(records, "binpb"))
        for part in decode_file(path, FOLDERS[folder], file=path.name, digest=""):
            for name, rows in part.tables.items():
                if rows.num_rows and name.partition(".")[0] in (FOLDERS[folder].system, "telemetry"):
                    tables[name].append(rows)
    for name, parts in tables.items():
        whole = pa.concat_tables(parts)
        whole = whole.drop_columns([column for column in _PROVENANCE if column in whole.column_names])
        sink = pa.BufferOutputStream()
        pq.write_table(whole, sink, compression="zstd")
        yield f"{stem}-{name.replace('.', '-')}.parquet", sink.getvalue().to_pybytes()
