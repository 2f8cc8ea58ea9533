"""An exports root in which everything goes wrong that may: the troubles of a simulation, drawn by a seeded chance."""

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lake.exports.folders import Exports
from lake.retirement import Retirements

FOLDERS = ("kasmina/seed_state", "urabrask/bsds", "tamiyo/command", "tolaria/system_state")
STORM = (20, 120)  # files that come at once
RUNS = 4  # training runs that the exports speak of


@dataclass
class World:
    """The exports of a home, and what was done to them. `done` counts the troubles by name."""

    root: Path
    home: Path
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    _number: int = 0
    _before: dict[Path, bytes] = field(default_factory=dict)  # what a file held before it was changed

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True)
        self.new()

    @property
    def away(self) -> Path:
        """Where the root is while it has vanished."""
        return self.root.with_name("away")

    def contents(self) -> frozenset[tuple[str, str]]:
        """(folder, identity) of every export that is there."""
        if not self.root.is_dir():
            return frozenset()
        return frozenset((export.folder, export.identity) for export in Exports(self.root).scan().exports)

    def act(self) -> None:
        """Do one trouble; a root that has vanished comes back."""
        if self.away.exists():
            self.away.rename(self.root)
            self.done["root is back"] += 1
            return
        names = [name for name, weight in _WEIGHTS.items() for _ in range(weight)]
        name = self.chance.choice(names)
        trouble: Callable[[], None] = getattr(self, name)
        trouble()
        self.done[name] += 1

    def new(self) -> None:
        """A new file, whole at once."""
        self._write(self._fresh(self.chance.choice(FOLDERS)), self._records(self.chance.randint(1, 4)))

    def storm(self, files: int | None = None) -> None:
        """Many new files, or that many."""
        for _ in range(self.chance.randint(*STORM) if files is None else files):
            self.new()

    def again(self) -> None:
        """The records of a file once more, under another name."""
        path = self._some()
        self._fresh(path.parent.relative_to(self.root).as_posix(), path.suffix).write_bytes(path.read_bytes())

    def rename(self) -> None:
        """Another name, in the same folder."""
        path = self._some()
        path.rename(self._fresh(path.parent.relative_to(self.root).as_posix(), path.suffix))

    def delete(self) -> None:
        """A file goes; never the last one."""
        if len(self._files()) > 1:
            self._some().unlink()

    def half(self) -> None:
        """A file that is being written; what was half is whole now."""
        for path in sorted(self.root.rglob("*.tmp")):
            path.rename(path.with_suffix(""))
        path = self._fresh(self.chance.choice(FOLDERS))
        data = self._records(2)
        path.with_name(f"{path.name}.tmp").write_bytes(data[: len(data) // 2])

    def bad(self) -> None:
        """Bytes that no reader takes, a file of no contract, a link to nothing."""
        self._fresh("kasmina/seed_state").write_bytes(self.chance.randbytes(50))
        self._fresh("kasmina/seed_state", ".docx").write_bytes(b"what is this")
        self._fresh("kasmina/seed_state").symlink_to(self.root / "nowhere")

    def change(self) -> None:
        """Other bytes under the same name."""
        path = self._some()
        self._before[path] = path.read_bytes()
        self._write(path, self._records(1))

    def back(self) -> None:
        """A, then B, then A again; else a change."""
        known = [path for path in sorted(self._before) if path.exists()]
        if not known:
            self.change()
            return
        path = self.chance.choice(known)
        now, then = path.read_bytes(), self._before[path]
        self._write(path, then)
        self._before[path] = now

    def clock(self) -> None:
        """The clock of the machine that writes was moved: files from the past or the future."""
        for path in self.chance.sample(self._files(), min(3, len(self._files()))):
            moved = path.stat().st_mtime + self.chance.choice([-86_400, -60, 60, 86_400])
            os.utime(path, (moved, moved))

    @contextmanager
    def newest_aside(self) -> Iterator[None]:
        """The newest file is away for a while, and comes back as it was."""
        files = self._files()
        if len(files) < 2:
            yield
            return
        aside = self.root.with_name("aside")
        files[-1].rename(aside)
        try:
            yield
        finally:
            aside.rename(files[-1])
            self.done["newest aside"] += 1

    def vanish(self) -> None:
        """The root is not mounted any more."""
        self.root.rename(self.away)

    def retire(self) -> None:
        """A training run is retired, or taken back in."""
        journal, run = Retirements(self.home), f"run-{self.chance.randrange(RUNS)}"
        if not journal.restore([run], "", "simulation", 1):
            journal.retire([run], "a trouble", "simulation", 1)

    def _records(self, count: int) -> bytes:
        """Lines that every folder can hold or reject."""
        lines = []
        for _ in range(count):
            self._number += 1
            run, place = f"run-{self.chance.randrange(RUNS)}", str(self._number)
            lines.append({"training_run_id": run, "seed_id": f"seed-{place}", "packet_id": place, "timestamp_ns": place})
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def _fresh(self, folder: str, suffix: str = ".ndjson") -> Path:
        self._number += 1
        path = self.root / folder / f"{self._number:06d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _files(self) -> list[Path]:
        return sorted((path for path in self.root.rglob("*.ndjson") if path.is_file()), key=lambda path: (path.name, path))

    def _some(self) -> Path:
        return self.chance.choice(self._files())


# how often each trouble comes, of all
_WEIGHTS = {
    "new": 8,
    "again": 4,
    "rename": 4,
    "delete": 3,
    "half": 4,
    "bad": 2,
    "change": 4,
    "back": 4,
    "clock": 2,
    "storm": 1,
    "vanish": 1,
    "retire": 2,
}
