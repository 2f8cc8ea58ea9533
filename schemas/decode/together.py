"""Decode many small exports of one folder at the cost of one; the result is that of decoding each alone.

The records are decoded together, numbered consecutively; their true origins are filled in afterwards. Only sound records take
part: an export with anything to reject is decoded alone, so that rejects and mending never see a neighbour's bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from schemas.contracts import Folder
from schemas.decode.dispatch import decode_file, extension_of
from schemas.decode.limits import Limits
from schemas.decode.message.binary import decode_payloads
from schemas.decode.message.text import TextDecoder
from schemas.decode.read.framing import Chunk, read_frames
from schemas.decode.read.isolate import Isolated
from schemas.decode.read.lines import read_lines
from schemas.decode.read.mending import acceptor
from schemas.decode.shape.collector import Collector, Decoded, Origin

SMALL_BYTES: Final = 256 * 1024  # larger exports gain nothing from being decoded together
_BINARY: Final = (".binpb", ".wal")
_FORMATS: Final = (*_BINARY, ".ndjson", ".ndjson.gz", ".ndjson.zst")


@dataclass(frozen=True)
class Source:
    """One export: its path on disk, its path below the exports root, and the SHA-256 of its bytes."""

    path: Path
    file: str
    digest: str


@dataclass
class _Pool:
    """Records of several exports. `owners`: for each record, the index of its export in `sources`."""

    sources: list[Source] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    raws: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, source: Source, chunk: Chunk) -> None:
        """Add an export whose records are one chunk."""
        self.owners += [len(self.sources)] * len(chunk.raws)
        self.sources.append(source)
        self.positions += chunk.positions
        self.raws += chunk.raws
        self.size += sum(map(len, chunk.raws))

    def without(self, owners: set[int]) -> "_Pool":
        """Return the pool without the exports at these indices of `sources`."""
        kept = _Pool()
        rows = {number: Chunk() for number in range(len(self.sources)) if number not in owners}
        for owner, position, raw in zip(self.owners, self.positions, self.raws, strict=True):
            if owner in rows:
                rows[owner].positions.append(position)
                rows[owner].raws.append(raw)
        for number, chunk in rows.items():
            kept.add(self.sources[number], chunk)
        return kept


def decode_together(sources: Sequence[Source], folder: Folder, limits: Limits | None = None) -> Iterator[Decoded]:
    """Decode exports of `folder`; give the same rows, rejects and counts, and raise the same, as `decode_file` of each."""
    limits = limits or Limits()
    pool = _Pool()
    for source in sources:
        chunk = _only_chunk(source, folder, limits)
        if chunk is None:
            yield from _alone(source, folder, limits)
            continue
        pool.add(source, chunk)
        if len(pool.raws) >= limits.chunk_records or pool.size >= limits.chunk_bytes:
            yield from _decode(pool, folder, limits)
            pool = _Pool()
    yield from _decode(pool, folder, limits)


def _alone(source: Source, folder: Folder, limits: Limits) -> Iterator[Decoded]:
    return decode_file(source.path, folder, file=source.file, digest=source.digest, limits=limits)


def _only_chunk(source: Source, folder: Folder, limits: Limits) -> Chunk | None:
    """Return the records of an export that is small and well framed; None for others."""
    extension = extension_of(source.file, folder)
    if not folder.messages or extension not in _FORMATS or source.path.stat().st_size > min(SMALL_BYTES, limits.file_bytes):
        return None
    binary = extension in _BINARY
    chunks = (
        read_frames(source.path, extension, limits, acceptor(folder)) if binary else read_lines(source.path, extension, limits)
    )
    first, more = next(chunks, Chunk()), any(chunks)
    return None if more or first.bad else first


def _decode(pool: _Pool, folder: Folder, limits: Limits) -> Iterator[Decoded]:
    """Decode a pool together; decode exports with something to reject one by one."""
    if not pool.sources:
        return
    bad = set(range(len(pool.sources)))
    with Isolated() as attempt:
        collector, bad = _try(pool, folder, limits)
    if attempt.error is not None or bad:
        for number in sorted(bad):
            yield from _alone(pool.sources[number], folder, limits)
        yield from _decode(pool.without(bad), folder, limits)
    else:
        yield _placed(collector.finish(), pool)


def _try(pool: _Pool, folder: Folder, limits: Limits) -> tuple[Collector, set[int]]:
    """Decode the pool's records under consecutive numbers; return the result and the indices of exports with rejects."""
    collector = Collector(folder, "", "", limits)
    if not pool.raws:
        return collector, set()
    numbers = list(range(len(pool.raws)))
    errors: dict[int, str] = {}
    if extension_of(pool.sources[0].file, folder) in _BINARY:
        errors = decode_payloads(collector, pool.raws, Origin(np.array(numbers, np.int64), pool.raws))
    else:
        TextDecoder(folder).decode(collector, Chunk(numbers, pool.raws), limits)
    rejected = [row["position"] for rows in collector.rejects.values() for row in rows]
    return collector, {pool.owners[row] for row in (*errors, *rejected)}


def _placed(decoded: Decoded, pool: _Pool) -> Decoded:
    """Return the rows with the export and position of each record in place of its consecutive number."""
    owners, positions = np.array(pool.owners, np.int64), np.array(pool.positions, np.int64)
    digests = pa.array([source.digest for source in pool.sources], pa.string())
    tables: dict[str, pa.Table] = {}
    for name, rows in (*decoded.tables.items(), ("", decoded.silent)):
        numbers = rows.column("position").to_numpy()
        for column, values in (
            ("export_digest", digests.take(pa.array(owners[numbers]))),
            ("position", pa.array(positions[numbers])),
        ):
            place = rows.schema.get_field_index(column)
            rows = rows.set_column(place, rows.schema.field(place), values)
        tables[name] = rows
    silent = tables.pop("")
    return replace(decoded, tables=tables, silent=silent)
