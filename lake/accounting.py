"""Check that no record is lost: rows read = rows kept + duplicates + rejects, each counted independently.

A separate reader (`lake.ingest.audit`) counts what lies in the exports, to check that all of it was read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lake.store.table_store import TableStore
from schemas.contracts import FOLDERS, TABLES, Folder

# cumulative counts are app transactions of the table: they change in the same commit as its rows, and outlive its log
_READ = "tamiyo.rows_read"
_DUPLICATES = "tamiyo.duplicates"
_REJECTED = "tamiyo.rejected"


@dataclass(frozen=True)
class Accounting:
    """Records of one table since its first commit. `kept` and `rejected` are counted from the tables themselves.

    `rows_read`, `duplicates` and `said_rejected` are the sums that the ingest kept. `records` is the number of records in the
    exports of all folders that feed the table, by a separate reader; `lost` of them are neither in rows nor in rejects.
    """

    rows_read: int
    kept: int
    duplicates: int
    rejected: int
    said_rejected: int
    records: int = 0
    lost: int = 0

    @property
    def balanced(self) -> bool:
        """Whether no record was lost or counted twice."""
        kept = self.kept + self.duplicates + self.rejected
        return self.rows_read == kept and self.rejected == self.said_rejected and not self.lost


@dataclass(frozen=True)
class Tally:
    """Counts that travel with a commit."""

    rows_read: int = 0
    duplicates: int = 0
    rejected: int = 0

    def plus(self, other: "Tally") -> "Tally":
        """Return the sum of both."""
        return Tally(self.rows_read + other.rows_read, self.duplicates + other.duplicates, self.rejected + other.rejected)

    def transactions(self) -> dict[str, int]:
        """Return the counts as app transactions of a commit."""
        return {_READ: self.rows_read, _DUPLICATES: self.duplicates, _REJECTED: self.rejected}

    def metadata(self) -> dict[str, str]:
        """Return the counts as metadata of a commit, for people who read the history."""
        return {key: str(value) for key, value in self.transactions().items()}


def tally(tables: TableStore, name: str) -> Tally:
    """Return the counts of the newest commit of a table; zeros if it was never written."""
    return Tally(*(number or 0 for number in tables.transactions(name, (_READ, _DUPLICATES, _REJECTED))))


def feeds(folder: Folder) -> tuple[str, ...]:
    """Return the contract tables that files of `folder` may fill: its own, or for envelopes all but Urza's and Simic's."""
    if folder.tables:
        return folder.tables
    return tuple(name for name in TABLES if name.partition(".")[0] not in ("urza", "simic"))


def export_key(folder: Folder, identity: str) -> str:
    """Return the key of the app transaction of one export in a folder; its version is the number of its newest arrival."""
    return f"{folder.path}:{identity}"


def reject_tables(name: str) -> list[str]:
    """Return the rejects tables that hold bad rows of contract table `name`."""
    return sorted({folder.reject_table_of(name) for folder in FOLDERS.values() if name in feeds(folder)})


def accounting(tables: TableStore, name: str) -> Accounting:
    """Return the accounting of contract table `name`."""
    said = tally(tables, name)
    rejected = sum(rejected_records(tables, reject) for reject in reject_tables(name))
    counted = [counted_in(tables, folder) for folder in FOLDERS.values() if name in feeds(folder)]
    return Accounting(
        rows_read=said.rows_read,
        kept=tables.count(name),
        duplicates=said.duplicates,
        rejected=rejected,
        said_rejected=said.rejected,
        records=sum(one.records for one in counted),
        lost=sum(one.lost for one in counted),
    )


def rejected_records(tables: TableStore, name: str) -> int:
    """Count the records that the rows of a rejects table stand for; a row of an older version stands for one."""
    return sum(sum(weights(batch)) for batch in tables.batches(name, columns=["position", "records"]))


def weights(rejects: pa.Table | pa.RecordBatch) -> list[int]:
    """Return how many records each row of a rejects table stands for."""
    found: list[int] = pc.fill_null(rejects.column("records"), 1).to_pylist()
    return found


@dataclass(frozen=True)
class Counted:
    """The number of records in exports of one folder, and how many of them are neither in rows nor in rejects."""

    records: int = 0
    lost: int = 0

    def plus(self, other: "Counted") -> "Counted":
        """Return the sum of both."""
        return Counted(self.records + other.records, self.lost + other.lost)

    def transactions(self, folder: Folder) -> dict[str, int]:
        """Return the counts as app transactions of a commit of the folder's rejects table."""
        return dict(zip(_counted_keys(folder), (self.records, self.lost), strict=True))


def counted_in(tables: TableStore, folder: Folder) -> Counted:
    """Return the counts of a folder's exports up to the newest commit of its rejects table."""
    return Counted(*(number or 0 for number in tables.transactions(folder.reject_table, _counted_keys(folder))))


def _counted_keys(folder: Folder) -> tuple[str, str]:
    """Return the keys of a folder's counts, which name the folder: two folders may share a rejects table."""
    return f"tamiyo.records:{folder.path}", f"tamiyo.lost:{folder.path}"


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sum of counts by name."""
    found: dict[str, int] = {}
    for count in counts:
        for name, number in count.items():
            found[name] = found.get(name, 0) + number
    return found
