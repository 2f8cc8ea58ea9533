"""Digest the rows that a training run's features read: an increment rebuilds the runs whose digest has changed.

A run reads its own rows, and those rows of other systems that its packets select, as of some time between its first and last
packet. Another host's record, or a sheet issued after the last packet, changes no digest.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gnn.join.derived import CONSERVATIVE
from gnn.join.joined import Joined
from gnn.join.rows import Ints, Rows
from schemas.contracts import TABLES
from schemas.digest import row_digests
from schemas.features import GROUPS

Words = NDArray[np.uint64]

# tables that are joined as of a packet's time: the time column, and whether the join is by blueprint
TIMED: Final[Mapping[str, tuple[str, bool]]] = {
    **{name: ("exported_at_ns", True) for name in TABLES if name.startswith("urza.")},
    "urabrask.bsds": ("issued_at_ns", True),
    "tezzeret.kernel": ("issued_at_ns", True),
    "weatherlight.health": ("timestamp_ns", False),
    "telemetry.metric": ("timestamp_ns", False),
}
# tables whose rows belong to a run; all rows of the run are read
OF_RUN: Final = tuple(
    sorted(
        {"tolaria.system_state"}
        | {table for group in GROUPS for table in group.source_tables if TABLES[table].scope and table not in TIMED}
    )
)
_FIRST: Final = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Reach:
    """What the join of a run selects among other systems' rows: its blueprints, and the times of its first and last packet.

    `bare`: the run has no layers or no activations of its own, so its gaps report the catalogue's guard tensors.
    """

    blueprints: tuple[str, ...]
    first_ns: int
    last_ns: int
    bare: bool


def reach_of(joined: Joined) -> dict[str, Reach]:
    """Return the reach of every run of a join."""
    states, nodes = joined.states, joined.nodes["blueprint"]
    names = nodes.names
    found = {}
    per_run = {name: np.diff(joined.nodes[name].ptr[states.run_ptr]) for name in ("layer", "activation")}
    for code, run in enumerate(states.runs):
        first, last = int(states.run_ptr[code]), int(states.run_ptr[code + 1])
        codes = [] if names is None else np.unique(names.codes[nodes.ptr[first] : nodes.ptr[last]]).tolist()
        blueprints = tuple(sorted(names.words[at] for at in codes if at >= 0)) if names is not None else ()
        bare = any(int(counts[code]) == 0 for counts in per_run.values())
        found[run] = Reach(blueprints, int(states.times[first]), int(states.times[last - 1]), bare)
    return found


class TimedRows:
    """Digests of the rows of the `TIMED` tables, from which the digest of a run's reach is computed."""

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        """Digest every row of `tables` (the `TIMED` tables by name)."""
        self._tables = {name: _Timed(name, tables[name]) for name in TIMED}
        self.placeholders = {name: _placeholders(tables[f"urza.{name}"]) for name in ("layer", "activation")}

    def digests(self, reaches: Sequence[Reach]) -> list[str]:
        """Return one digest (hex) per reach, of the rows that are the newest of their kind at some time within it."""
        sums = np.zeros((len(reaches), 2 * len(self._tables)), dtype=np.uint64)
        first = np.array([reach.first_ns for reach in reaches], dtype=np.int64)
        last = np.array([reach.last_ns for reach in reaches], dtype=np.int64)
        owner = np.repeat(np.arange(len(reaches)), [len(reach.blueprints) for reach in reaches])
        names = [name for reach in reaches for name in reach.blueprints]
        for place, timed in enumerate(self._tables.values()):
            chosen = slice(2 * place, 2 * place + 2)
            if timed.by_blueprint:
                np.add.at(
                    sums, (owner[:, None], np.arange(2 * place, 2 * place + 2)), timed.sums(names, first[owner], last[owner])
                )
            else:
                sums[:, chosen] = timed.sums([""] * len(reaches), first, last)
        counts = sorted(self.placeholders.items())
        return [
            hashlib.sha256(row.tobytes() + repr(counts if reach.bare else None).encode()).hexdigest()
            for row, reach in zip(sums, reaches, strict=True)
        ]


class _Timed:
    """Running sums of one table's row digests, in order of owner and time."""

    def __init__(self, name: str, table: pa.Table) -> None:
        column, self.by_blueprint = TIMED[name]
        if name == "telemetry.metric":
            table = table.filter(pc.equal(table.column("name"), CONSERVATIVE))
        rows = Rows(table)
        labels = rows.labels("blueprint_id") if self.by_blueprint else None
        self._codes = {"": 0} if labels is None else {word: code for code, word in enumerate(labels.words)}
        owner = np.zeros(rows.size, dtype=np.int64) if labels is None else labels.codes[:-1]
        times = rows.times(column)
        order = np.lexsort((times, owner))
        self._times, self._owner = times[order], owner[order]
        self._ptr = np.searchsorted(self._owner, np.arange(len(self._codes) + 1))
        self._sums = np.zeros((rows.size + 1, 2), dtype=np.uint64)
        np.cumsum(_words(table, times)[order], axis=0, out=self._sums[1:])
        self._ranks = np.unique(self._times)
        self._keys = self._key(self._owner, self._times)

    def _key(self, owner: Ints, times: Ints) -> Ints:
        return owner * (len(self._ranks) + 1) + np.searchsorted(self._ranks, times, side="right")

    def sums(self, owners: Sequence[str], first: Ints, last: Ints) -> Words:
        """Return the sum of the digests (uint64 [n, 2]) of each owner's rows that are newest at a time in `first`..`last`."""
        code = np.array([self._codes.get(name, -1) for name in owners], dtype=np.int64)
        known = code >= 0
        code = np.where(known, code, 0)
        if not len(self._keys):
            return np.zeros((len(owners), 2), dtype=np.uint64)
        end = np.searchsorted(self._keys, self._key(code, last), side="right")
        newest = np.searchsorted(self._keys, self._key(code, first), side="right") - 1
        begin = self._ptr[code]
        # count all rows with the newest time at `first`; if there is none, start at the owner's first row
        same = np.searchsorted(self._keys, self._keys[np.maximum(newest, 0)], side="left")
        begin = np.where(newest >= begin, same, begin)
        found = self._sums[np.maximum(end, begin)] - self._sums[begin]
        found[~known] = 0
        return found


def _words(table: pa.Table, times: Ints) -> Words:
    """Return the first 128 bits of each row's digest; for rows without a time it includes the arrival, which orders them."""
    undated = times == _FIRST
    if "arrival" in table.column_names and undated.any():
        arrival = pc.if_else(pa.array(undated), table.column("arrival"), None)
        table = table.append_column("arrived", arrival)
    texts = row_digests(table)
    return np.frombuffer(bytes.fromhex("".join(text[:32] for text in texts)), dtype=np.uint64).reshape(-1, 2)


def _placeholders(table: pa.Table) -> int:
    return int(pc.sum(pc.cast(pc.fill_null(table.column("is_placeholder"), False), pa.int64())).as_py() or 0)
