"""Check that every record of an export became rows or a reject, by position."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lake.accounting import Counted
from lake.exports.folders import Export
from lake.ingest.counting import count_frames, count_line_ends, count_lines, count_members, count_rows, frame_ends, is_zero
from schemas.contracts import TABLES, Folder, Reason
from schemas.decode import Decoded, Limits
from schemas.decode.read.framing import TAIL_KEPT

Ints = npt.NDArray[np.int64]
_WHOLE: Final = (Reason.INVALID_JSON, Reason.UNREADABLE_FILE, Reason.LIMIT_EXCEEDED)


@dataclass
class _Places:
    """The positions from which the outcomes of one export come. `pieces`: bytes of each reject, by position."""

    rows: list[Ints] = field(default_factory=list)
    pieces: dict[int, int] = field(default_factory=dict)
    stops: int | None = None
    rejected: int = 0

    def positions(self) -> Ints:
        """Return the distinct positions, sorted (int64 [n])."""
        found = np.concatenate([*self.rows, np.fromiter(self.pieces, np.int64, len(self.pieces))])
        return found if (np.diff(found) > 0).all() else np.unique(found)


@dataclass
class Audit:
    """Gathers the outcomes of some exports of a folder, then checks each export."""

    folder: Folder
    limits: Limits
    exports: Sequence[Export]
    _found: dict[str, _Places] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin without outcomes for any export."""
        self._found = {export.digest: _Places() for export in self.exports}

    def note(self, chunk: Decoded) -> None:
        """Add a decoded chunk of the exports."""
        for name, rows in chunk.tables.items():
            if self._is_head(name, chunk.tables):
                self._note_rows(rows)
        if chunk.silent.num_rows:
            self._note_rows(chunk.silent)
        for rejects in chunk.rejects.values():
            self._note_rejects(rejects)

    def _is_head(self, name: str, tables: Mapping[str, pa.Table]) -> bool:
        """Return whether rows of table `name` are needed: if the folder has a table, each record has a row in it."""
        telemetry = self.folder.record.startswith("telemetry.")
        return name == self.folder.record or telemetry or self.folder.record not in TABLES or self.folder.record not in tables

    def _note_rows(self, rows: pa.Table) -> None:
        positions = np.asarray(rows.column("position"), np.int64)
        if len(self._found) == 1:
            (only,) = self._found.values()
            only.rows.append(positions)
            return
        encoded = pc.dictionary_encode(rows.column("export_digest").combine_chunks())
        encoded = encoded if isinstance(encoded, pa.DictionaryArray) else encoded.combine_chunks()
        codes, digests = np.asarray(encoded.indices), encoded.dictionary.to_pylist()
        cuts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
        for first, last in pairwise(cuts):
            if first < last:
                self._found[digests[codes[first]]].rows.append(positions[first:last])

    def _note_rejects(self, rejects: pa.Table) -> None:
        for row in rejects.to_pylist():
            place = self._found[row["export_digest"]]
            place.pieces[row["position"]] = max(len(row["raw"]), place.pieces.get(row["position"], 0))
            place.rejected += row["records"]
            ends = row["reason"] == Reason.LIMIT_EXCEEDED and not row["raw"]
            if ends or (row["file"].lower().endswith(".json") and row["reason"] in _WHOLE):
                place.stops = row["position"] if place.stops is None else min(place.stops, row["position"])

    def judge(self, export: Export, extension: str) -> Counted:
        """Compare the records in an export with its outcomes, after all its chunks were noted."""
        place = self._found[export.digest]
        if export.size > self.limits.file_bytes or not export.size:
            return Counted(place.rejected, 0)
        if extension == ".parquet":
            return self._judge_rows(export, place)
        if extension in (".binpb", ".wal"):
            return _judge_frames(export, extension, place)
        positions = place.positions()
        if extension == ".ndjson" and _is_counting(positions) and count_line_ends(export.path, export.size) == len(positions):
            return Counted(len(positions), 0)
        if extension == ".json":
            expected = np.arange(count_members(export.path), dtype=np.int64)
        else:
            most = min(self.limits.unpacked_bytes, max(self.limits.compression_ratio * export.size, 4 << 20))
            lines = count_lines(export.path, extension, most)
            expected = lines.numbers
            if not lines.whole and not place.pieces:
                return Counted(len(expected) + 1, 1)
        wanted = expected if place.stops is None else expected[expected < place.stops]
        if len(wanted) == len(positions) and (wanted == positions).all():
            return Counted(len(expected), 0)
        return Counted(len(expected), int((~np.isin(wanted, positions)).sum()))

    def _judge_rows(self, export: Export, place: _Places) -> Counted:
        rows = count_rows(export.path)
        if rows is None:
            return Counted(max(place.rejected, 1), int(not place.pieces))
        kept = sum(map(len, place.rows))
        return Counted(rows, max(0, rows - kept - place.rejected))


def _is_counting(positions: Ints) -> bool:
    """Return whether sorted positions are 1, 2, 3 and so on."""
    return len(positions) > 0 and positions[0] == 1 and positions[-1] == len(positions)


def _judge_frames(export: Export, extension: str, place: _Places) -> Counted:
    """Check that every byte lies in a frame or in a rejected piece that begins where the one before it ends."""
    positions = place.positions()
    nexts = np.append(positions[1:], export.size)
    lost = (
        0
        if len(positions) and positions[0] == 0
        else count_frames(export.path, extension, 0, int([*positions, export.size][0]))
    )
    for row in np.flatnonzero(frame_ends(export.path, extension, positions) < nexts).tolist():
        first, after = int(positions[row]), int(nexts[row])
        kept = place.pieces.get(first)
        if kept is not None and (kept >= TAIL_KEPT or first + kept >= after or is_zero(export.path, first, after)):
            continue
        end = int(frame_ends(export.path, extension, positions[row : row + 1])[0]) if kept is None else first + kept
        lost += count_frames(export.path, extension, max(end, first + 1), after)
    return Counted(len(positions) + lost, lost)
