"""Keep the ledger of arrivals `$TAMIYO_HOME/exports.ndjson`: fsynced, append-only, one event per line.

An export arrives if its digest is in a folder now and was not there at the folder's previous scan: A, then B in its place,
then A again are three arrivals. All arrivals of one scan have the same arrival number; `seq` numbers the lines.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lake.durable.journal import Journal
from lake.durable.publish import publish_file
from lake.durable.strict_json import read_object
from lake.exports.folders import Export, Scan, identity
from schemas.errors import StorageError

LEDGER = "exports.ndjson"
REBUILT = "rebuilt.json"


@dataclass(frozen=True)
class Entry:
    """One event: the export with `digest` arrived in `folder` (as `file`, of `size` bytes) or is gone from it."""

    seq: int
    scan: int
    event: Literal["arrived", "gone"]
    digest: str
    folder: str
    file: str
    size: int
    at: str

    @property
    def identity(self) -> str:
        """The identity of the export in its folder."""
        return identity(self.folder, self.file, self.digest)


@dataclass(frozen=True)
class Ledger:
    """The ledger of one home. Whoever records a scan holds the ingest lock."""

    home: Path

    @property
    def journal(self) -> Journal:
        """The ledger's file."""
        return Journal(
            self.home / LEDGER,
            "the order of arrivals is known nowhere else: restore the file, "
            "or remove it together with the tables directory for a new start",
        )

    def entries(self) -> list[Entry]:
        """Return all events in order. Raises StorageError for a damaged line; a torn last line (power loss) does not count."""
        journal, entries = self.journal, []
        for number, record in enumerate(journal.read(), start=1):
            try:
                entry = Entry(**record)
            except TypeError as damage:
                raise journal.damaged(number, str(damage)) from damage
            if entry.seq != number:
                raise journal.damaged(number, f"expected seq {number}, found {entry.seq}")
            entries.append(entry)
        return entries

    def record(self, scan: Scan) -> list[Entry]:
        """Append what has arrived or gone since the previous scan, if anything; return all events."""
        entries = self.entries()
        before = present(entries, scan.folders)
        now: dict[tuple[str, str], Export] = {}
        for export in scan.exports:
            now.setdefault((export.folder, export.identity), export)
        arrived = sorted((e for key, e in now.items() if key not in before), key=_place)
        gone = sorted((e for key, e in before.items() if key not in now), key=_place)
        if not arrived and not gone:
            return entries
        number = 1 + max((e.scan for e in entries), default=0)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        new = [Entry(0, number, "arrived", e.digest, e.folder, e.file, e.size, at) for e in arrived]
        new += [Entry(0, number, "gone", e.digest, e.folder, e.file, e.size, at) for e in gone]
        numbered = [_numbered(entry, len(entries) + place) for place, entry in enumerate(new, start=1)]
        self.journal.append(asdict(entry) for entry in numbered)
        return [*entries, *numbered]


def note_rebuilt(home: Path, retired: str = "") -> None:
    """Remember that everything that has arrived went through a whole rebuild with the retirements of digest `retired`.

    The caller holds the lock of the home's writers.
    """
    done = {"seq": _last_arrival(Ledger(home).entries()), "retired": retired}
    publish_file(home / REBUILT, (json.dumps(done) + "\n").encode("ascii"))


def is_rebuilt(home: Path, entries: Iterable[Entry], retired: str = "") -> bool:
    """Return whether every arrival among `entries` and the retirements of digest `retired` have gone through a whole rebuild.

    A rebuild that was killed or failed does not count.
    """
    path = home / REBUILT
    done = read_object(path, StorageError) if path.exists() else {}
    seq = done.get("seq", 0)
    return isinstance(seq, int) and _last_arrival(entries) <= seq and done.get("retired", "") == retired


def _last_arrival(entries: Iterable[Entry]) -> int:
    return max((entry.seq for entry in entries if entry.event == "arrived"), default=0)


def _place(one: Entry | Export) -> tuple[str, str]:
    return (one.folder, one.identity)


def _numbered(entry: Entry, seq: int) -> Entry:
    return Entry(seq, entry.scan, entry.event, entry.digest, entry.folder, entry.file, entry.size, entry.at)


def present(entries: Iterable[Entry], folders: Iterable[str]) -> Mapping[tuple[str, str], Entry]:
    """Return (folder, identity) -> newest arrival, for the exports present in `folders` at their newest scan."""
    wanted = frozenset(folders)
    found: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        if entry.folder not in wanted:
            continue
        key = (entry.folder, entry.identity)
        if entry.event == "arrived":
            found[key] = entry
        else:
            found.pop(key, None)
    return found


def first_arrivals(entries: Iterable[Entry], folders: Iterable[str]) -> dict[tuple[str, str], int]:
    """Return (folder, identity) -> `seq` of the first arrival, for exports that ever arrived in `folders`."""
    wanted = frozenset(folders)
    found: dict[tuple[str, str], int] = {}
    for entry in entries:
        if entry.folder in wanted and entry.event == "arrived":
            found.setdefault((entry.folder, entry.identity), entry.seq)
    return found
