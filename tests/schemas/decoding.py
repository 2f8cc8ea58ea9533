"""Decoding of bytes in tests: what one export gives, in plain Python."""

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import zstandard

from schemas.contracts import FOLDERS, TABLES
from schemas.decode import Limits, decode_file
from schemas.decode.shape.canonical import canonical_json

DIGEST = "d" * 64


@dataclass
class Result:
    """All chunks of one export together."""

    tables: dict[str, pa.Table]
    rejects: dict[str, list[dict[str, Any]]]
    rows_read: dict[str, int]
    rejected: dict[str, int]
    unknown_fields: dict[str, int]

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Rows of a table, maps as dicts; [] where there are none."""
        if table not in self.tables:
            return []
        return [{name: as_plain(value) for name, value in row.items()} for row in self.tables[table].to_pylist()]

    def row(self, table: str) -> dict[str, Any]:
        """The only row of a table."""
        rows = self.rows(table)
        assert len(rows) == 1, (rows, self.rejects)
        return rows[0]

    @property
    def reasons(self) -> list[str]:
        """Reason codes of all rejects, sorted."""
        return sorted(row["reason"] for rows in self.rejects.values() for row in rows)

    def balanced(self) -> bool:
        """Conservation: rows read = candidates + rejects, for every table."""
        names = set(self.rows_read) | set(self.rejected) | set(self.tables)
        kept = {name: len(self.rows(name)) for name in names}
        return all(
            self.rows_read.get(name, 0) == kept[name] + self.rejected.get(name, 0) for name in names if name in TABLES
        ) and sum(self.rejected.values()) == sum(row["records"] for rows in self.rejects.values() for row in rows)

    def content(self) -> dict[str, list[str]]:
        """Rows by table as canonical text without provenance, sorted: equal where the contents are."""
        provenance = {"export_digest", "position", "arrival"}
        return {
            name: sorted(
                canonical_json({k: str(v) for k, v in row.items() if k not in provenance}).text for row in self.rows(name)
            )
            for name in sorted(self.tables)
        }


def as_plain(value: Any) -> Any:
    """A map (a list of pairs) as a dict; other values as they are."""
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):
        return dict(value)
    return value


def decode(root: Path, folder: str, name: str, data: bytes, limits: Limits | None = None) -> Result:
    """Decode `data` as the export `folder`/`name`."""
    path = root / name
    path.write_bytes(data)
    result = Result({}, {}, {}, {}, {})
    for chunk in decode_file(path, FOLDERS[folder], file=f"{folder}/{name}", digest=DIGEST, limits=limits):
        for table, rows in chunk.tables.items():
            assert rows.schema.equals(TABLES[table].arrow_schema), table
            rows.validate(full=True)
            result.tables[table] = pa.concat_tables([result.tables[table], rows]) if table in result.tables else rows
        for table, rejects in chunk.rejects.items():
            result.rejects.setdefault(table, []).extend(rejects.to_pylist())
        for mine, theirs in (
            (result.rows_read, chunk.rows_read),
            (result.rejected, chunk.rejected),
            (result.unknown_fields, chunk.unknown_fields),
        ):
            for key, count in theirs.items():
                mine[key] = mine.get(key, 0) + count
    return result


def decode_lines(root: Path, folder: str, *records: Any) -> Result:
    """Decode records (objects, or lines as they are) as a .ndjson export."""
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    return decode(root, folder, "x.ndjson", "".join(f"{line}\n" for line in lines).encode())


def varint(value: int) -> bytes:
    """A protobuf varint."""
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def binpb(payloads: Iterable[bytes]) -> bytes:
    """A varint-delimited stream."""
    return b"".join(varint(len(payload)) + payload for payload in payloads)


def wal(payloads: Iterable[bytes]) -> bytes:
    """A little-endian u32-delimited log."""
    return b"".join(len(payload).to_bytes(4, "little") + payload for payload in payloads)


def packed(lines: Sequence[str], extension: str) -> bytes:
    """Lines as the bytes of a .ndjson, .ndjson.gz or .ndjson.zst file."""
    text = "".join(f"{line}\n" for line in lines).encode()
    if extension == ".ndjson.gz":
        return gzip.compress(text)
    return zstandard.ZstdCompressor().compress(text) if extension == ".ndjson.zst" else text
