"""Append to journals: fsynced files of one JSON object per line. A torn last line (a kill, power loss) does not count."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lake.durable.publish import ensure_dir, fsync_dir
from schemas.errors import StorageError

_BLOCK: Final = 1 << 16  # bytes; longer than most lines


@dataclass(frozen=True)
class Journal:
    """The journal at `path`. `remedy` says what to do about a damaged line; the error message ends in it.

    All who append to a journal hold the same lock; readers need none.
    """

    path: Path
    remedy: str = "restore the file, or remove that line"

    def read(self) -> list[dict[str, Any]]:
        """Return all records in order, [] if there is no file. Raises StorageError for a damaged line."""
        lines = self._lines()
        try:
            records = json.loads(b"[" + b",".join(lines) + b"]")
        except ValueError:
            records = []
        if len(records) == len(lines) and all(isinstance(record, dict) for record in records):
            return list(records)
        return [self._record(number, line) for number, line in enumerate(lines, start=1)]

    def readable(self) -> list[dict[str, Any]]:
        """Return the records in order, without those of damaged lines."""
        found = []
        for number, line in enumerate(self._lines(), start=1):
            try:
                found.append(self._record(number, line))
            except StorageError:
                continue
        return found

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Cut off a torn last line, then append a line for each record in one write, and fsync.

        Values without a JSON type become text. The caller holds the lock of this journal.
        """
        data = b"".join(json.dumps(record, default=str).encode("ascii") + b"\n" for record in records)
        if not data:
            return
        ensure_dir(self.path.parent)
        new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            _cut_torn_line(descriptor)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            fsync_dir(self.path.parent)

    def damaged(self, number: int, found: str) -> StorageError:
        """Return the error to raise for line `number`; `found` says what is wrong with it."""
        return StorageError(f"{self.path}: line {number}: {found}; {self.remedy}")

    def _lines(self) -> list[bytes]:
        try:
            data = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return []
        return data[: data.rfind(b"\n") + 1].splitlines()

    def _record(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except ValueError as damage:
            raise self.damaged(number, str(damage)) from damage
        if not isinstance(record, dict):
            raise self.damaged(number, f"expected an object, found {type(record).__name__}")
        return record


def _cut_torn_line(descriptor: int) -> None:
    """Truncate the file after its last whole line."""
    size = end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - _BLOCK)
        line_end = os.pread(descriptor, end - start, start).rfind(b"\n")
        if line_end >= 0:
            end = start + line_end + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)
