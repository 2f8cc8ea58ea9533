"""Hold a block of packets with everything that their graphs are made of, joined as of each packet's time.

One packet online and all packets of many runs offline are both blocks, and take the same code.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa

from gnn.join import derived as formulas
from gnn.join.asof import AsOf
from gnn.join.catalogue import ELEMENT_TABLES
from gnn.join.columns import View
from gnn.join.metadata import Metadata
from gnn.join.nodes import TELEMETRY, Nodes
from gnn.join.packets import STATE, Packets
from gnn.join.rows import Floats, Ints, Labels, Rows, expand, offsets
from gnn.join.state import SEED_TABLE, RunState, States
from gnn.norms.ewma import EwmaState, EwmaTrace, all_states
from schemas.features import EWMA_METRICS


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
        # groups are ordered by run, so the codes of a run's seeds are contiguous
        first = np.searchsorted(groups, packets.run * span)
        count = np.searchsorted(groups, packets.run * span + span) - first
        packet = np.repeat(np.arange(packets.size), count)
        row = newest.newest(expand(first, count), packets.times[packet])
        there = row >= 0
        self.packet: Ints = packet[there]
        self.row: Ints = row[there]
        self.ptr: Ints = offsets(np.bincount(self.packet, minlength=packets.size).astype(np.int64))

    def still_needed(self, now: Ints) -> tuple[Ints, Ints]:
        """Return the rows that later packets may need, and their runs: int64 [n] each.

        They are each seed's newest row at `now` (int64 [R], a time per run), and all newer ones.
        """
        if not len(now):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        groups = np.flatnonzero(self._group_run >= 0)
        current = self._newest.newest(groups, now[self._group_run[groups]])
        later = np.flatnonzero((self._run >= 0) & (self._times > now[self._run]))
        rows = np.union1d(current[current >= 0], later)
        return rows, self._run[rows]

    def newest_times(self, rows: Ints) -> dict[str, int]:
        """Return the newest time of each seed among those rows."""
        labels = self.rows.labels("seed_id")
        found: dict[str, int] = {}
        for code, time in zip(labels.codes[rows].tolist(), self._times[rows].tolist(), strict=True):
            name = labels.words[code]
            found[name] = max(time, found.get(name, time))
        return found

    @property
    def size(self) -> int:
        """The number of seed nodes."""
        return len(self.row)


_CONNECTIONS: Final = "tolaria.connection_telemetry"
_START: Final = RunState().ewma


class BlueprintNodes:
    """Blueprint nodes: the host's first, then each one attached to a seed, in order of id.

    `ptr` int64 [P + 1] bounds the nodes of each packet. `packet` int64 [N] is the packet of each node, `names` [N] its id and
    `code` int64 [N] the metadata's code of it, -1 if unknown there. `attached` int64 [N] is the row of a seed state that names
    the blueprint, -1 for the host's. `host` int64 [P] is the host node of each packet, -1 if it has none.
    """

    def __init__(self, packets: Packets, seeds: Seeds, codes_of: Mapping[str, int]) -> None:
        """Collect the nodes of every packet."""
        hosts = packets.rows.labels("blueprint_id")
        attached = seeds.rows.labels("blueprint_id").take(seeds.row)
        words = tuple(sorted({*hosts.words, *attached.words} - {""}))
        place = {word: code for code, word in enumerate(words)}
        host, other = hosts.translate(place)[:-1], attached.translate(place)
        span = len(words) + 1
        seed = np.flatnonzero((other >= 0) & (other != host[seeds.packet]))
        keys, first = np.unique((seeds.packet * span + other)[seed], return_index=True)
        owner, has_host = keys // span, host >= 0
        counts = has_host.astype(np.int64) + np.bincount(owner, minlength=packets.size).astype(np.int64)
        self.ptr: Ints = offsets(counts)
        self.packet: Ints = np.repeat(np.arange(packets.size), counts)
        self.host: Ints = np.where(has_host, self.ptr[:-1], -1)
        own = np.full(len(self.packet), -1, dtype=np.int64)
        own[self.host[has_host]] = host[has_host]
        self.attached: Ints = np.full(len(own), -1, dtype=np.int64)
        self.attached[own < 0] = seeds.row[seed[first]]
        own[own < 0] = keys % span
        self.names = Labels(own, words)
        self.code: Ints = self.names.translate(codes_of)


class Losses:
    """The losses of each packet and of its run's packet before, by name: float64 [P], NaN if missing."""

    def __init__(self, packets: Packets, states: States) -> None:
        """Read the losses of `packets`; `states` hold those of the packet before each run's first."""
        rows, first = packets.rows, packets.run_ptr[:-1]
        training = formulas.training_loss(rows.numbers("training_loss")[:-1], rows.metric("loss")[:-1])
        self.now: dict[str, Floats] = {"validation_loss": rows.numbers("validation_loss")[:-1], "training_loss": training}
        self.before: dict[str, Floats] = {}
        self._final = packets.run_ptr[1:] - 1
        for name, values in self.now.items():
            earlier = np.empty(packets.size)
            earlier[1:] = values[:-1]
            earlier[first] = [states[run].losses.get(name, np.nan) if run in states else np.nan for run in packets.runs]
            self.before[name] = earlier

    def last(self, run: int) -> dict[str, float]:
        """Return the losses that the last packet of a run (given by its code) measured, by name."""
        found = {name: float(values[self._final[run]]) for name, values in self.now.items()}
        return {name: value for name, value in found.items() if np.isfinite(value)}


class Block:
    """Packets, their nodes, seeds and blueprints, and the EWMA states before each packet."""

    def __init__(self, metadata: Metadata, tables: Mapping[str, pa.Table], states: States) -> None:
        """Join `tables` (system_state, telemetry, seed_state) with the metadata, going on from the runs' `states`."""
        self.metadata = metadata
        catalogue = metadata.catalogue
        self.packets = Packets(tables[STATE])
        hosts = self.packets.rows.labels("blueprint_id")
        self.host_names = hosts.take(np.arange(self.packets.size))
        self.host: Ints = self.host_names.translate(metadata.codes_of)
        self.host_record: Ints = catalogue.records.newest(self.host, self.packets.times)
        self.telemetry = {name: Rows(tables[table], table) for name, table in TELEMETRY.items()}
        self.connections = Rows(tables[_CONNECTIONS], _CONNECTIONS)
        self.nodes = {name: self._nodes(name, id_column) for name, (_, id_column) in ELEMENT_TABLES.items()}
        self.seeds = Seeds(self.packets, _with_earlier(self.packets, Rows(tables[SEED_TABLE], SEED_TABLE), states))
        self.blueprints = BlueprintNodes(self.packets, self.seeds, metadata.codes_of)
        self.attached: Ints = self.seeds.rows.labels("blueprint_id").take(self.seeds.row).translate(metadata.codes_of)
        self.seed_names: Labels = self.seeds.rows.labels("seed_id").take(self.seeds.row)
        position = np.arange(self.seeds.size) - self.seeds.ptr[self.seeds.packet]
        self.seed_entries: Ints = metadata.seed_notes.entries(self.host_record[self.seeds.packet], self.seed_names, position)
        self.traces, self._final = _traces(self.packets, states)
        self.losses = Losses(self.packets, states)
        self._host_views = self.blueprint_views(self.host, np.arange(self.packets.size))
        self._seed_views = self.blueprint_views(self.attached, self.seeds.packet)

    def _nodes(self, name: str, id_column: str) -> Nodes:
        """Return the nodes of one element type. Of single packets, those of one host mostly name the same elements."""
        labels, owner = self.telemetry[name].labels(id_column), self.packets.find(self.telemetry[name])

        def make() -> Nodes:
            return Nodes(self.host_record, self.metadata.catalogue.elements[name], labels, owner)

        if self.packets.size != 1:
            return make()
        return self.metadata.once((name, int(self.host_record[0]), labels.key, owner.tobytes()), make)

    def blueprint_views(self, blueprints: Ints, packet: Ints) -> dict[str, View]:
        """Return views of the rows of those blueprints (codes int64 [N]) as of the time of those packets (int64 [N])."""
        metadata, times, records = self.metadata, self.packets.times, self.metadata.catalogue.records
        return {
            "urza.blueprint": View(records.rows, lambda: records.row[records.newest(blueprints, times[packet])]),
            "urabrask.bsds": View(metadata.sheets.rows, lambda: metadata.sheets.newest(blueprints, times[packet])),
            "tezzeret.kernel": View(metadata.kernels, lambda: metadata.kernel_rows(blueprints, times[packet])),
        }

    def packet_views(self, packet: Ints) -> dict[str, View]:
        """Return the views that every element of a packet may read: the packet itself and its host blueprint's rows."""
        views = _picked_views(self._host_views, packet)
        views[STATE] = View(self.packets.rows, packet)
        return views

    def seed_views(self, seed: Ints) -> dict[str, View]:
        """Return the views that an element of those seed nodes may read: the seed's state, its blueprint's rows, the packet."""
        views = _picked_views(self._seed_views, seed)
        views[SEED_TABLE] = View(self.seeds.rows, self.seeds.row[seed])
        views[STATE] = View(self.packets.rows, self.seeds.packet[seed])
        return views

    def final_states(self, states: States) -> dict[str, RunState]:
        """Return every run's state after this block."""
        after = dict(states)
        runs, table = self.packets.runs, self.seeds.rows.table
        rows, owner = self.seeds.still_needed(self.packets.times[self.packets.run_ptr[1:] - 1])
        if (
            len(runs) > 1
        ):  # ordered by run and copied at once, since a copy for each of many runs takes time that grows with both
            order = np.argsort(owner, kind="stable")
            rows, owner = rows[order], owner[order]
            table = table.take(pa.array(rows, pa.int64()))
        else:
            table = _picked(table, rows)
        bounds = np.searchsorted(owner, np.arange(len(runs) + 1)).tolist()
        for code, run in enumerate(runs):
            own = slice(bounds[code], bounds[code + 1])
            seeds, times = table.slice(own.start, own.stop - own.start), self.seeds.newest_times(rows[own])
            after[run] = RunState(self._final[code], seeds, self.losses.last(code), times)
        return after


def _with_earlier(packets: Packets, seeds: Rows, states: States) -> Rows:
    """Return the block's seed rows and those of the runs' states that they do not supersede."""
    known = [(run, states[run]) for run in packets.runs if run in states]
    earlier = [state.seeds for run, state in known if state.seeds.num_rows and not _superseded(packets, seeds, run, state)]
    return Rows(pa.concat_tables([seeds.table, *earlier]), SEED_TABLE) if earlier else seeds


def _superseded(packets: Packets, seeds: Rows, run: str, state: RunState) -> bool:
    """Return whether the block has, by its first packet, a newer row of every seed in the run's state.

    It is false if the block has several runs.
    """
    if len(packets.runs) != 1 or state.seed_times is None or seeds.labels("training_run_id").words != (run,):
        return False
    codes, times = seeds.labels("seed_id"), seeds.times("timestamp_ns")
    by_now = np.flatnonzero(times <= packets.times[0]).tolist()
    fresh = {codes.words[code]: time for code, time in zip(codes.codes[by_now].tolist(), times[by_now].tolist(), strict=True)}
    return all(fresh.get(seed, time) > time for seed, time in state.seed_times.items())


def _picked_views(views: Mapping[str, View], rows: Ints) -> dict[str, View]:
    def chosen(view: View) -> View:
        return View(view.source, lambda: view.rows[rows])

    return {table: chosen(view) for table, view in views.items()}


def _picked(table: pa.Table, rows: Ints) -> pa.Table:
    """Return those rows (ascending): as a slice if they are contiguous and at least half of the table, else as a copy."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and 2 * len(rows) >= table.num_rows:
        return table.slice(int(rows[0]), len(rows))
    return table.take(pa.array(rows, pa.int64()))


def _traces(packets: Packets, states: States) -> tuple[dict[str, EwmaTrace], list[dict[str, EwmaState]]]:
    """Return the states before every packet of the block, by metric, and the states after each run's last packet."""
    values = np.stack([packets.rows.numbers(metric)[:-1] for metric in EWMA_METRICS])
    parts = []
    for code, run in enumerate(packets.runs):
        start = states[run].ewma if run in states else _START
        span = slice(packets.run_ptr[code], packets.run_ptr[code + 1])
        parts.append(all_states(values[:, span], [start[metric] for metric in EWMA_METRICS]))
    finals = [{m: trace.final for m, trace in zip(EWMA_METRICS, part, strict=True)} for part in parts]
    return {metric: _joined([part[row] for part in parts]) for row, metric in enumerate(EWMA_METRICS)}, finals


def _joined(parts: list[EwmaTrace]) -> EwmaTrace:
    if len(parts) == 1:
        return parts[0]
    empty = np.zeros(0)
    return EwmaTrace(
        np.concatenate([empty, *(part.mean for part in parts)]),
        np.concatenate([empty, *(part.var for part in parts)]),
        np.concatenate([np.zeros(0, dtype=np.int64), *(part.count for part in parts)]),
        EwmaState(0.0, 0.0),
    )
