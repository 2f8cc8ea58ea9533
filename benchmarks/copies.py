"""Make exports of many training runs cheaply: copies of recorded runs under names and on days of their own.

    python -m benchmarks.copies PLACE --runs 100000 [--packets 2] [--own-hosts] [SOURCE ...]

A copy keeps topology and values. Each run keeps its first packets, with the seed states, field reports, commands and telemetry
that `KEPT` says; copies lie a day apart. By default a run keeps the blueprint of the host that it was copied from, so that
Urza's, Urabrask's and Tezzeret's records are those of the sources; `--own-hosts` copies them too, one host a run.
"""

import argparse
import gzip
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import zstandard

from lake.settings import SAMPLE

STATES: Final = "tolaria/system_state"
# folder -> (lines a packet, lines a run) that a copied run keeps
KEPT: Final = {
    STATES: (1, 0),
    "kasmina/seed_state": (2, 0),
    "tamiyo/field_report": (1, 0),
    "tamiyo/command": (1, 0),
    "tamiyo/telemetry": (0, 1),
    "weatherlight/telemetry": (0, 1),
}
HOSTS: Final = ("urza/blueprint", "urabrask/bsds", "tezzeret/kernel")
OTHER: Final = "simic/registry_snapshot"
COPIES_A_FILE: Final = 8
_DAY_NS: Final = 86_400 * 10**9
_RUN: Final = re.compile(rb"run-s\d+-\d+")
# the part of the name of a run, or of a run or host, that tells recordings apart
_OF_RUN: Final = re.compile(rb"(?<=run)-s(\d+)-(?=\d)")
_OF_ANY: Final = re.compile(rb"-s(\d+)-(?=\d)")
_DATE: Final = re.compile(rb"\d{4}-\d\d-\d\d(?=T)")
_TIME_NS: Final = re.compile(rb'(?<="timestamp_ns":")\d+')


@dataclass(frozen=True)
class Source:
    """One recording, thinned: the lines of each folder (bytes), its number of runs, and where its other files lie."""

    root: Path
    lines: dict[str, bytes]
    runs: int


def unpacked(path: Path) -> bytes:
    """Return the bytes of an export without its compression."""
    data = path.read_bytes()
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return gzip.decompress(data) if path.suffix == ".gz" else data


def thinned(files: Iterable[Path], most: int) -> tuple[bytes, int]:
    """Return the first `most` lines of each run, and the number of runs."""
    kept: list[bytes] = []
    seen: Counter[bytes] = Counter()
    for path in files:
        for line in unpacked(path).splitlines(keepends=True):
            named = _RUN.search(line)
            if named is not None and seen[named.group()] < most:
                seen[named.group()] += 1
                kept.append(line)
    return b"".join(kept), len(seen)


def source(root: Path, packets: int) -> Source:
    """Read one recording."""
    kept = {
        folder: thinned(sorted((root / folder).iterdir()), a_packet * packets + a_run)
        for folder, (a_packet, a_run) in KEPT.items()
    }
    return Source(root, {folder: lines for folder, (lines, _) in kept.items()}, kept[STATES][1])


def copy(lines: bytes, number: int, *, own_hosts: bool = False) -> bytes:
    """Return the lines under the names of copy `number`, that many days later. Lengths of names stay, as binary files need."""

    def renamed(named: re.Match[bytes]) -> bytes:
        return b"-" + _name(number, len(named.group(1)) + 1) + b"-"

    moved = _DATE.sub(lambda day: _later(day.group(), number), (_OF_ANY if own_hosts else _OF_RUN).sub(renamed, lines))
    return _TIME_NS.sub(lambda time: b"%d" % (int(time.group()) + number * _DAY_NS), moved)


def _name(number: int, length: int) -> bytes:
    """Return a name of `length` letters: the number in base 26."""
    letters = bytearray()
    for _ in range(length):
        number, letter = divmod(number, 26)
        letters.append(97 + letter)
    if number:
        raise ValueError(f"expected fewer than {26**length} copies, since names keep their length")
    return bytes(letters[::-1])


def _later(day: bytes, days: int) -> bytes:
    return str(date.fromisoformat(day.decode()) + timedelta(days)).encode()


def make(place: Path, roots: Sequence[Path], runs: int, packets: int, *, own_hosts: bool = False) -> int:
    """Write exports of at least `runs` runs below `place`; return how many there are."""
    sources = [source(root, packets) for root in roots]
    copies = -(-runs // sum(one.runs for one in sources))
    for number, one in enumerate(sources):
        for first in range(0, copies, COPIES_A_FILE):
            numbers = range(first, min(first + COPIES_A_FILE, copies))
            for folder, lines in one.lines.items():
                _write(
                    place / folder / f"copies-{number}-{first:04d}.ndjson.zst",
                    (copy(lines, at, own_hosts=own_hosts) for at in numbers),
                )
        for folder in HOSTS:
            _hosts(one.root / folder, place / folder, number, copies if own_hosts else 0)
    shutil.copytree(sources[0].root / OTHER, place / OTHER, dirs_exist_ok=True)
    return copies * sum(one.runs for one in sources)


def _hosts(found: Path, place: Path, number: int, copies: int) -> None:
    """Copy the files of one folder about hosts as they are, or, without compression, `copies` times under other names."""
    place.mkdir(parents=True, exist_ok=True)
    for path in sorted(found.iterdir()):
        target = place / f"{number}-{path.name}"
        if not copies or path.name.startswith("kernels"):
            shutil.copy(path, target)
            continue
        data = unpacked(path)
        suffix = ".ndjson" if ".ndjson" in path.name else path.suffix
        target.with_name(target.name.split(".")[0] + suffix).write_bytes(
            b"".join(copy(data, at, own_hosts=True) for at in range(copies))
        )


def _write(path: Path, parts: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, zstandard.ZstdCompressor(level=1).stream_writer(file) as writer:
        for part in parts:
            writer.write(part)


def main() -> None:
    """Print the number of runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("place", type=Path)
    parser.add_argument("sources", type=Path, nargs="*", default=[SAMPLE])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--packets", type=int, default=2)
    parser.add_argument("--own-hosts", action="store_true")
    chosen = parser.parse_args()
    print(make(chosen.place, chosen.sources, chosen.runs, chosen.packets, own_hosts=chosen.own_hosts))


if __name__ == "__main__":
    main()
