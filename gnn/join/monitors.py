"""Read from Urza's records which layers each seed monitors, and at which threshold it should act.

A record lists a seed under its id, or under its position among the host's seeds in decimal; the id is looked up first.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from gnn.join.catalogue import Records, find_sorted
from gnn.join.rows import Floats, Ints, Labels, offsets


class SeedNotes:
    """Entries by record and seed: the monitored `layers`, and `thresholds` float64 [entries + 1] (the last for no entry)."""

    def __init__(self, records: Records) -> None:
        """Compile `urza.blueprint`'s `monitors` and `monitor_thresholds`."""
        blueprints = records.rows
        owner = records.of(blueprints)
        layers: dict[tuple[int, str], list[str]] = {}
        thresholds: dict[tuple[int, str], float] = {}
        for code, monitors, limits in zip(owner.tolist(), *_said(blueprints.table), strict=True):
            for entry in monitors or ():
                layers.setdefault((code, entry["seed"]), []).append(entry["layer_id"])
            for seed, value in limits or ():
                thresholds.setdefault((code, seed), float(value) if value is not None else float("nan"))
        entries = sorted({*layers, *thresholds})
        words = sorted({seed for _, seed in entries})
        self._seeds = {word: code for code, word in enumerate(words)}
        self._span = len(words) + 1
        keys = np.array([code * self._span + self._seeds[seed] for code, seed in entries], dtype=np.int64)
        self._order = np.argsort(keys)
        self._keys = keys[self._order]
        self.ptr: Ints = offsets(np.array([len(layers.get(entry, ())) for entry in entries], dtype=np.int64))
        self._counts, self._first = np.append(np.diff(self.ptr), 0), np.append(self.ptr[:-1], 0)
        names = [name for entry in entries for name in layers.get(entry, ())]
        places = {name: place for place, name in enumerate(dict.fromkeys(names))}
        self.layers = Labels(np.array([places[name] for name in names], dtype=np.int64), tuple(places))
        self.thresholds: Floats = np.array([*(thresholds.get(entry, float("nan")) for entry in entries), float("nan")])

    def entries(self, records: Ints, seeds: Labels, positions: Ints) -> Ints:
        """Return the entry (int64 [n]) of each host's seed, by its id, else by its position in the packet; -1 for none."""
        by_id = self._find(records, seeds.translate(self._seeds))
        if not len(self._keys):
            return by_id
        count = int(positions.max(initial=-1)) + 1
        codes = np.array([self._seeds.get(str(position), -1) for position in range(count)], dtype=np.int64)
        return np.where(by_id >= 0, by_id, self._find(records, codes[positions]))

    def _find(self, records: Ints, seeds: Ints) -> Ints:
        wanted = np.where((records >= 0) & (seeds >= 0), records * self._span + seeds, -1)
        return find_sorted(self._keys, self._order, wanted)

    def counts(self, entries: Ints) -> Ints:
        """Return the number of layers of each entry; 0 for -1."""
        return np.asarray(self._counts[entries])

    def first(self, entries: Ints) -> Ints:
        """Return the first place in `layers` of each entry; 0 for -1."""
        return np.asarray(self._first[entries])


def _said(table: pa.Table) -> tuple[list[Any], list[Any]]:
    """Return the two columns as Python values, None if the record says nothing."""
    found = []
    for name in ("monitors", "monitor_thresholds"):
        found.append(table.column(name).to_pylist() if name in table.column_names else [None] * table.num_rows)
    return found[0], found[1]
