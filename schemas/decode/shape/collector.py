"""Collect the result of decoding one chunk of an export: rows, rejects and counts, by table."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.contracts import REJECT_SCHEMA, TABLES, Folder, Reason
from schemas.decode.limits import Limits
from schemas.decode.shape.constant import nulls, repeated

SILENT: Final = pa.schema([("export_digest", pa.string()), ("position", pa.int64())])


@cache
def _none_silent() -> pa.Table:
    return SILENT.empty_table()


@dataclass(frozen=True)
class Decoded:
    """One decoded chunk.

    `tables`: contract rows by table. `rejects`: rows of REJECT_SCHEMA by rejects table. `rows_read`: candidates + rejects per
    contract table (elements are counted inside accepted records). `rejected`: rejects per contract table. `unknown_fields`: how
    often an undeclared field (`Message.field`) or enum number (`Enum=number`) was seen. `suspicious`: rows per contract table
    with an event time before 2000. `silent`: export_digest and position of sound records that give no row.
    """

    tables: dict[str, pa.Table]
    rejects: dict[str, pa.Table]
    rows_read: dict[str, int]
    rejected: dict[str, int]
    unknown_fields: dict[str, int]
    suspicious: dict[str, int] = field(default_factory=dict)
    silent: pa.Table = field(default_factory=_none_silent)


def printable(text: str) -> str:
    """Return the text with lone surrogates escaped; JSON and file names can hold them, UTF-8 can't."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class RawRecord:
    """One record as it is in the file: its byte offset or line, and its bytes."""

    position: int
    raw: bytes


class BadRecord(ValueError):
    """A record that is rejected, with its reason code."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class Drift:
    """Undeclared fields and how often each was seen."""

    counts: dict[str, int] = field(default_factory=dict)

    def count(self, name: str) -> None:
        """Count one occurrence of `name`."""
        self.counts[name] = self.counts.get(name, 0) + 1


@dataclass
class Collector:
    """Gathers the outcome of one chunk. `file` and `digest` name the export that every row comes from.

    `carrier`: the folder of the file if `folder` is that of a message inside an envelope; it names the rejects tables. If
    `placed` is False, the rows come from no file, and `export_digest` and `position` are NULL. `short`: no record has as many
    bytes as a string or list may have bytes or elements, so that none can be beyond these limits.
    """

    folder: Folder
    file: str
    digest: str
    limits: Limits = field(default_factory=Limits)
    carrier: Folder | None = None
    placed: bool = True
    short: bool = False
    tables: dict[str, list[pa.Table]] = field(default_factory=dict)
    rejects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    rows_read: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    suspicious: dict[str, int] = field(default_factory=dict)
    silent: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def read(self, table: str, count: int) -> None:
        """Count `count` records of `table` as read."""
        if count:
            self.rows_read[table] = self.rows_read.get(table, 0) + count

    def add(self, name: str, rows: pa.Table) -> None:
        """Keep contract rows of table `name`."""
        if rows.num_rows:
            self.tables.setdefault(name, []).append(rows)

    def reject(self, table: str, record: RawRecord, reason: Reason, message: str, records: int = 1) -> None:
        """Keep one bad record of `table`, or a damaged part that held several `records`, with its reason and bytes."""
        self.rejected[table] = self.rejected.get(table, 0) + records
        row = {
            "export_digest": self.digest,
            "file": printable(self.file),
            "position": record.position,
            "reason": reason.value,
            "message": printable(message),
            "raw": record.raw,
            "records": records,
        }
        self.rejects.setdefault((self.carrier or self.folder).reject_table_of(table), []).append(row)

    def reject_record(self, record: RawRecord, reason: Reason, message: str) -> None:
        """Count and keep a record that is bad as a whole; it counts for the folder's own table."""
        self.read(self.folder.record, 1)
        self.reject(self.folder.record, record, reason, message)

    def count_unknown(self, counts: dict[str, int]) -> None:
        """Add to the counts of undeclared fields and enum numbers."""
        for name, count in counts.items():
            shown = printable(name)
            self.unknown[shown] = self.unknown.get(shown, 0) + count

    def suspect(self, table: str, count: int) -> None:
        """Count rows with an implausible event time."""
        if count:
            self.suspicious[table] = self.suspicious.get(table, 0) + count

    def note_silent(self, positions: npt.NDArray[np.int64]) -> None:
        """Note sound records that give no row."""
        if len(positions):
            self.silent.append(positions)

    def fresh(self) -> "Collector":
        """Return an empty collector for the same file."""
        return Collector(self.folder, self.file, self.digest, self.limits, placed=self.placed)

    def absorb(self, other: "Collector") -> None:
        """Add what another collector gathered from the same file."""
        for name, parts in other.tables.items():
            self.tables.setdefault(name, []).extend(parts)
        for name, rows in other.rejects.items():
            self.rejects.setdefault(name, []).extend(rows)
        for table, count in other.rows_read.items():
            self.read(table, count)
        for table, count in other.rejected.items():
            self.rejected[table] = self.rejected.get(table, 0) + count
        self.count_unknown(other.unknown)
        self.silent += other.silent
        for table, count in other.suspicious.items():
            self.suspect(table, count)

    def finish(self) -> Decoded:
        """Return the gathered chunk as Arrow tables."""
        return Decoded(
            tables={name: parts[0] if len(parts) == 1 else pa.concat_tables(parts) for name, parts in self.tables.items()},
            rejects={name: pa.Table.from_pylist(rows, REJECT_SCHEMA) for name, rows in self.rejects.items()},
            rows_read=dict(self.rows_read),
            rejected=dict(self.rejected),
            unknown_fields=dict(self.unknown),
            suspicious=dict(self.suspicious),
            silent=self._silent(),
        )

    def _silent(self) -> pa.Table:
        if not self.silent:
            return _none_silent()
        positions = np.concatenate(self.silent)
        return pa.table([repeated(self.digest, len(positions)), pa.array(positions, pa.int64())], schema=SILENT)


@dataclass(frozen=True)
class Origin:
    """Where the rows of a batch come from: file positions, and the records' bytes, which only rejects need.

    `records` maps rows to entries of `raws`; None if row n is entry n.
    """

    positions: npt.NDArray[np.int64]
    raws: Sequence[bytes]
    records: npt.NDArray[np.int64] | None = None

    def take(self, rows: npt.NDArray[np.int64]) -> "Origin":
        """Return the origin of the rows at `rows`, in that order."""
        return Origin(self.positions[rows], self.raws, rows if self.records is None else self.records[rows])

    def raw(self, row: int) -> bytes:
        """Return the bytes of one row's record."""
        return bytes(self.raws[row if self.records is None else int(self.records[row])])

    def record(self, row: int) -> RawRecord:
        """Return the position and bytes of one row's record."""
        return RawRecord(int(self.positions[row]), self.raw(row))


def typed_columns(name: str, columns: dict[str, Any], origin: Origin, digest: str | None) -> pa.Table:
    """Return contract rows of table `name` from its columns; the ingest fills in `arrival`.

    `export_digest` is `digest`, and `position` the origin's; both are NULL if `digest` is None.
    """
    schema, rows = TABLES[name].arrow_schema, len(origin.positions)
    whole = columns | {
        "arrival": nulls(rows, pa.int64()),
        "export_digest": nulls(rows, pa.string()) if digest is None else repeated(digest, rows),
        "position": nulls(rows, pa.int64()) if digest is None else pa.array(origin.positions, pa.int64()),
    }
    return pa.Table.from_arrays([whole[column] for column in schema.names], schema=schema)
