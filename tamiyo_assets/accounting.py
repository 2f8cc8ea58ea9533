"""Conservation of records: rows read = rows kept + duplicates + rejects, each side counted in a place of its own."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schemas.contracts import FOLDERS, TABLES, Folder
from tamiyo_assets.resources.tables import TableStore

# cumulative counts are app transactions of the table: they change with its rows, in one commit, and outlive its log
_READ = "tamiyo.rows_read"
_DUPLICATES = "tamiyo.duplicates"
_REJECTED = "tamiyo.rejected"


@dataclass(frozen=True)
class Accounting:
    """Records of one table since its first commit. `kept` and `rejected` are counted from the tables themselves.

    `rows_read`, `duplicates` and `said_rejected` are what the ingest added up.
    """

    rows_read: int
    kept: int
    duplicates: int
    rejected: int
    said_rejected: int

    @property
    def balanced(self) -> bool:
        """Whether no record was lost or counted twice."""
        return self.rows_read == self.kept + self.duplicates + self.rejected and self.rejected == self.said_rejected


@dataclass(frozen=True)
class Tally:
    """Counts that travel with a commit."""

    rows_read: int = 0
    duplicates: int = 0
    rejected: int = 0

    def plus(self, other: "Tally") -> "Tally":
        """The sum of both."""
        return Tally(self.rows_read + other.rows_read, self.duplicates + other.duplicates, self.rejected + other.rejected)

    def transactions(self) -> dict[str, int]:
        """As app transactions of a commit."""
        return {_READ: self.rows_read, _DUPLICATES: self.duplicates, _REJECTED: self.rejected}

    def metadata(self) -> dict[str, str]:
        """As metadata of a commit, for people who read the history."""
        return {key: str(value) for key, value in self.transactions().items()}


def tally(tables: TableStore, name: str) -> Tally:
    """The counts of the newest commit of a table; zeros where it was never written."""
    return Tally(*(number or 0 for number in tables.transactions(name, (_READ, _DUPLICATES, _REJECTED))))


def feeds(folder: Folder) -> tuple[str, ...]:
    """The contract tables that files of `folder` may fill: its own, or for envelopes those of every other producer."""
    if folder.tables:
        return folder.tables
    return tuple(name for name in TABLES if name.partition(".")[0] not in ("urza", "simic"))


def export_key(folder: Folder, identity: str) -> str:
    """App transaction of one export in one folder; its version is the number of the export's newest arrival."""
    return f"{folder.path}:{identity}"


def reject_tables(name: str) -> list[str]:
    """The rejects tables that hold bad rows of contract table `name`."""
    return sorted({folder.reject_table_of(name) for folder in FOLDERS.values() if name in feeds(folder)})


def accounting(tables: TableStore, name: str) -> Accounting:
    """The accounting of contract table `name`."""
    said = tally(tables, name)
    rejected = sum(tables.count(reject) for reject in reject_tables(name))
    return Accounting(said.rows_read, tables.count(name), said.duplicates, rejected, said.rejected)


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum of counts by name."""
    found: dict[str, int] = {}
    for count in counts:
        for name, number in count.items():
            found[name] = found.get(name, 0) + number
    return found
