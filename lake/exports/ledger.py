"""The ledger of arrivals: `$TAMIYO_HOME/exports.ndjson`, fsynced, append-only, one line an event.

An export arrives when its digest is in a folder now and was not at the scan of that folder before: A, then B in its place,
then A again are three arrivals. All arrivals of one scan have the same arrival number, the scan's; `seq` counts lines.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lake.durable.publish import append_durable, publish_file
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
        """What makes it one export of its folder."""
        return identity(self.folder, self.file, self.digest)


@dataclass(frozen=True)
class Ledger:
    """The ledger of one home. Whoever records a scan holds the ingest lock."""

    home: Path

    @property
    def path(self) -> Path:
        """The ledger's file."""
        return self.home / LEDGER

    def entries(self) -> list[Entry]:
        """All events in order; StorageError names a damaged line. A torn last line (power loss) never counted."""
        if not self.path.exists():
            return []
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        lines = whole.splitlines()
        try:
            entries = [Entry(**one) for one in json.loads(b"[" + b",".join(lines) + b"]")]
        except (ValueError, TypeError):
            entries = [self._entry(number, line) for number, line in enumerate(lines, start=1)]
        for number, entry in enumerate(entries, start=1):
            if entry.seq != number:
                raise self._damaged(number, f"expected seq {number}, found {entry.seq}")
        return entries

    def _entry(self, number: int, line: bytes) -> Entry:
        try:
            return Entry(**json.loads(line))
        except (ValueError, TypeError) as damage:
            raise self._damaged(number, str(damage)) from damage

    def _damaged(self, number: int, found: str) -> StorageError:
        return StorageError(
            f"{self.path}: line {number}: {found}; the order of arrivals is known nowhere else: restore the file, "
            "or remove it together with the tables directory for a new start"
        )

    def record(self, scan: Scan) -> list[Entry]:
        """All events, after appending what arrived and what is gone since the scan before; where that is nothing, none is."""
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
        self._append(numbered)
        return [*entries, *numbered]

    def _append(self, entries: Iterable[Entry]) -> None:
        data = b"".join(json.dumps(asdict(entry)).encode("ascii") + b"\n" for entry in entries)
        if self.path.exists() and not _ends_whole(self.path):
            old = self.path.read_bytes()
            publish_file(self.path, old[: old.rfind(b"\n") + 1])
        append_durable(self.path, data)


def note_rebuilt(home: Path) -> None:
    """Remember that all that has arrived went through a whole rebuild; the caller holds the lock of the home's writers."""
    publish_file(home / REBUILT, (json.dumps({"seq": _last_arrival(Ledger(home).entries())}) + "\n").encode("ascii"))


def is_rebuilt(home: Path, entries: Iterable[Entry]) -> bool:
    """Whether every arrival among `entries` has gone through a whole rebuild. One that was killed or failed does not count."""
    path = home / REBUILT
    done = read_object(path, StorageError).get("seq") if path.exists() else 0
    return isinstance(done, int) and _last_arrival(entries) <= done


def _last_arrival(entries: Iterable[Entry]) -> int:
    return max((entry.seq for entry in entries if entry.event == "arrived"), default=0)


def _place(one: Entry | Export) -> tuple[str, str]:
    return (one.folder, one.identity)


def _numbered(entry: Entry, seq: int) -> Entry:
    return Entry(seq, entry.scan, entry.event, entry.digest, entry.folder, entry.file, entry.size, entry.at)


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        if size == 0:
            return True
        stream.seek(size - 1)
        return stream.read(1) == b"\n"


def present(entries: Iterable[Entry], folders: Iterable[str]) -> Mapping[tuple[str, str], Entry]:
    """(folder, identity) -> its newest arrival, of those that lay in `folders` at their newest scan."""
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
    """(folder, identity) -> `seq` of its first arrival in one of `folders`."""
    wanted = frozenset(folders)
    found: dict[tuple[str, str], int] = {}
    for entry in entries:
        if entry.folder in wanted and entry.event == "arrived":
            found.setdefault((entry.folder, entry.identity), entry.seq)
    return found
