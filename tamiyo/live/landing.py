"""Land messages: they become exports before they are acknowledged, in segments that the pipeline sees once they are closed."""

import fcntl
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gnn.online.config import ServingConfig
from lake.durable.publish import TEMPORARY, ensure_dir, fsync_dir
from schemas.contracts import FOLDERS

_LENGTH: Final = struct.Struct("<I")


class _Segment:
    """An open segment of one folder. The lock on its file tells other processes that its writer lives."""

    def __init__(self, folder: Path, group: str, now: float) -> None:
        ensure_dir(folder)
        self.opened, self._number = now, _next_number(folder, group)
        while True:
            self.path = folder / f".oona-{group}-{self._number:08d}{TEMPORARY}"
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
                self._descriptor = os.open(self.path, flags, 0o644)
                break
            except FileExistsError:
                self._number += 1
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        fsync_dir(folder)
        self.size = self._safe = 0

    def append(self, payload: bytes) -> None:
        """Write one record; after an OSError the segment is as it was when it was last synced."""
        data = memoryview(_LENGTH.pack(len(payload)) + payload)
        self.size += len(data)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            self._undo()
            raise

    def sync(self) -> None:
        """Make all that was appended durable."""
        if self.size == self._safe:
            return
        try:
            os.fsync(self._descriptor)
        except OSError:
            self._undo()
            raise
        self._safe = self.size

    def close(self) -> Path | None:
        """Give the segment the name of an export; return its path, None if it held nothing."""
        self.sync()
        found = None
        if self.size:
            found = publish_segment(self.path)
        else:
            self.path.unlink()
        os.close(self._descriptor)
        return found

    def _undo(self) -> None:
        os.ftruncate(self._descriptor, self._safe)
        self.size = self._safe


def publish_segment(path: Path) -> Path:
    """Rename `.oona-<group>-<n>.tmp` to `oona-<group>-<n>.wal`, durably."""
    found = path.with_name(path.name.removeprefix(".").removesuffix(TEMPORARY) + ".wal")
    path.rename(found)
    fsync_dir(path.parent)
    return found


def _next_number(folder: Path, group: str) -> int:
    names = (path.name.removeprefix(".").removeprefix(f"oona-{group}-").partition(".")[0] for path in folder.iterdir())
    return max((int(name) for name in names if name.isdigit()), default=0) + 1


class Landing:
    """The open segments of one group under an exports root."""

    def __init__(self, exports: Path, group: str, config: ServingConfig, clock: Callable[[], float] = time.monotonic) -> None:
        """Open no segment yet; `clock` gives seconds that never go back."""
        self._exports, self._group, self._config, self._clock = exports, group, config, clock
        self._segments: dict[str, _Segment] = {}

    def recover(self) -> list[Path]:
        """Close what a killed process left open: whole records become exports; a torn last one was never acknowledged."""
        found = []
        for folder in FOLDERS:
            for path in sorted((self._exports / folder).glob(f".oona-{self._group}-*{TEMPORARY}")):
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    size = whole_bytes(path)
                    os.ftruncate(descriptor, size)
                    os.fsync(descriptor)
                    if size:
                        found.append(publish_segment(path))
                    else:
                        path.unlink()
                except BlockingIOError:
                    continue
                finally:
                    os.close(descriptor)
        return found

    def add(self, folder: str, payload: bytes) -> None:
        """Append one record to the segment of an export folder; it counts after `sync`."""
        segment = self._segments.get(folder)
        if segment is None:
            segment = self._segments[folder] = _Segment(self._exports / folder, self._group, self._clock())
        segment.append(payload)

    def sync(self) -> None:
        """Make all that was added durable; on an OSError none of it since the last sync counts."""
        for segment in self._segments.values():
            segment.sync()

    def rotate(self, *, everything: bool = False) -> list[Path]:
        """Close the segments that are large or old enough, or all; return the exports that they became."""
        now, found = self._clock(), []
        for folder, segment in list(self._segments.items()):
            full = segment.size >= self._config.segment_bytes
            if everything or full or now - segment.opened >= self._config.segment_s:
                path = segment.close()
                del self._segments[folder]
                found += [path] if path is not None else []
        return found


def whole_bytes(path: Path) -> int:
    """Return bytes of the whole records at the beginning of a segment."""
    size, place = path.stat().st_size, 0
    with path.open("rb") as stream:
        while place + _LENGTH.size <= size:
            stream.seek(place)
            (length,) = _LENGTH.unpack(stream.read(_LENGTH.size))
            if place + _LENGTH.size + length > size:
                break
            place += _LENGTH.size + length
    return place
