"""Hold the metadata snapshot: everything that does not belong to one training run, compiled once and immutable.

It holds Urza's catalogue, BSDS, kernels and health as arrays that are searched by blueprint and time. Offline it is compiled
from the tables, online from a cache that is refreshed in the background.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gnn.join.asof import AsOf
from gnn.join.catalogue import Catalogue
from gnn.join.derived import conservative_mode
from gnn.join.monitors import SeedNotes
from gnn.join.rows import Floats, Ints, Rows
from gnn.join.sheets import Sheets
from gnn.join.sources import Sources

_UPDATE_FIRST = ("urza", "event", "update")
_KEPT: Final = 1536  # a host has six: three node types, connections, seed monitors, sites
_Made = TypeVar("_Made")


def _ranks(rows: Rows, column: str, order: tuple[str, ...]) -> Ints:
    labels = rows.labels(column)
    return labels.translate({word: rank for rank, word in enumerate(order)})[:-1]


def _blueprint_codes(columns: Iterable[pa.ChunkedArray]) -> dict[str, int]:
    words: set[str] = set()
    for column in columns:
        words.update(word for word in pc.unique(column).to_pylist() if word)
    return {word: code for code, word in enumerate(sorted(words))}


class Metadata:
    """An immutable snapshot of the catalogue, sheets, kernels and health."""

    def __init__(self, sources: Mapping[str, pa.Table], placeholders: Mapping[str, int] | None = None) -> None:
        """Compile `sources` (contract tables by name; the packets' own tables are not read).

        `placeholders`: number of guard tensors in the whole catalogue by node type, if `sources` hold only a part of it.
        """
        tables = Sources(sources)
        # cache of what depends on the metadata alone: what hosts have, by relation and record code; sheets, by their row
        self.known: dict[tuple[str, int], Any] = {}
        self._made: dict[tuple[Hashable, ...], Any] = {}
        named = [table for table in tables if table.startswith("urza.")] + ["urabrask.bsds", "tezzeret.kernel"]
        self.codes_of = _blueprint_codes(tables[name].column("blueprint_id") for name in named)
        self.catalogue = Catalogue(tables, self.codes_of)
        elements = self.catalogue.elements
        counted = {name: int(elements[name].placeholder.sum()) for name in ("layer", "activation")}
        self.placeholders = counted if placeholders is None else dict(placeholders)
        self.seed_notes = SeedNotes(self.catalogue.records)
        self.sheets = Sheets(tables["urabrask.bsds"], self.codes_of)
        self.kernels = Rows(tables["tezzeret.kernel"])
        self._kernel = self._compile_kernels()
        self.health = Rows(tables["weatherlight.health"])
        times = self.health.times("timestamp_ns")
        self._health = AsOf(np.zeros(len(times), dtype=np.int64), times)
        self._conservative, self._modes = conservative_mode(self.health, tables["telemetry.metric"])

    def once(self, key: tuple[Hashable, ...], make: Callable[[], _Made]) -> _Made:
        """Return what `make` returns, which depends on the metadata and `key` alone; it is called again if it was not kept."""
        found: _Made | None = self._made.get(key)
        if found is None:
            if len(self._made) >= _KEPT:
                self._made.clear()
            found = self._made[key] = make()
        return found

    def _compile_kernels(self) -> AsOf:
        """Index kernels by blueprint and time of issue; those without a time are the oldest, in order of arrival."""
        owner = self.kernels.labels("blueprint_id").translate(self.codes_of)[:-1]
        issued = self.kernels.times("issued_at_ns")
        arrival = np.where(issued == np.iinfo(np.int64).min, self.kernels.times("arrival"), 0)
        return AsOf(owner, issued, arrival, _ranks(self.kernels, "source", _UPDATE_FIRST))

    def kernel_rows(self, blueprints: Ints, times: Ints) -> Ints:
        """Return the row of `kernels` that is each blueprint's newest at each time; -1 for none."""
        return self._kernel.newest(blueprints, times)

    def health_rows(self, times: Ints) -> Ints:
        """Return the newest row of `health` at each time; -1 for none."""
        return self._health.newest(np.zeros(len(times), dtype=np.int64), times)

    def conservative(self, times: Ints) -> Floats:
        """Return the conservative mode at each time: 1 or 0, by the newest statement of either source; NaN if there is none."""
        return self._modes[self._conservative.newest(np.zeros(len(times), dtype=np.int64), times)]
