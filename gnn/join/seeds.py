"""The seeds of each packet: the newest state per seed of its run that is not newer than the packet, in order of seed id."""

import numpy as np

from gnn.join.asof import AsOf
from gnn.join.packets import Packets
from gnn.join.rows import Ints, Rows, expand, offsets


class Seeds:
    """Seed nodes: `ptr` int64 [P + 1]; `packet` and `row` (of `rows`, kasmina.seed_state) int64 [N]."""

    def __init__(self, packets: Packets, rows: Rows) -> None:
        """Find the seeds of every packet."""
        self.rows = rows
        run = packets.run_codes(rows.labels("training_run_id"))[:-1]
        seeds = rows.labels("seed_id")
        rank = seeds.ranks()[:-1]
        span = len(seeds.words) + 1
        keys = np.where((run >= 0) & (rank >= 0), run * span + rank, -1)
        groups, inverse = np.unique(keys, return_inverse=True)
        code = np.where(keys >= 0, inverse, -1)
        exported = rows.labels("source")
        is_export = np.array([*(word == "export" for word in exported.words), False], dtype=np.int64)[exported.codes[:-1]]
        self._run, self._times, self._group_run = run, rows.times("timestamp_ns"), groups // span
        newest = self._newest = AsOf(code, self._times, is_export)
        # groups are ordered by run, so a run's seeds are one stretch of codes
        first = np.searchsorted(groups, packets.run * span)
        count = np.searchsorted(groups, packets.run * span + span) - first
        packet = np.repeat(np.arange(packets.size), count)
        row = newest.newest(expand(first, count), packets.times[packet])
        there = row >= 0
        self.packet: Ints = packet[there]
        self.row: Ints = row[there]
        self.ptr: Ints = offsets(np.bincount(self.packet, minlength=packets.size).astype(np.int64))

    def still_needed(self, now: Ints) -> tuple[Ints, Ints]:
        """Rows that packets after `now` (int64 [R], per run) may need, and their runs: each seed's newest, and newer ones."""
        if not len(now):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        groups = np.flatnonzero(self._group_run >= 0)
        current = self._newest.newest(groups, now[self._group_run[groups]])
        later = np.flatnonzero((self._run >= 0) & (self._times > now[self._run]))
        rows = np.union1d(current[current >= 0], later)
        return rows, self._run[rows]

    def newest_times(self, rows: Ints) -> dict[str, int]:
        """Newest time of each seed among those rows."""
        labels = self.rows.labels("seed_id")
        found: dict[str, int] = {}
        for code, time in zip(labels.codes[rows].tolist(), self._times[rows].tolist(), strict=True):
            name = labels.words[code]
            found[name] = max(time, found.get(name, time))
        return found

    @property
    def size(self) -> int:
        """Number of seed nodes."""
        return len(self.row)
