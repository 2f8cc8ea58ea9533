"""Read training states: rows of `tolaria.system_state` in order, their step metrics, and their telemetry rows."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa

from gnn.join.asof import AsOf
from gnn.join.rows import Floats, Ints, Labels, Rows, codes_of, lengths
from schemas.digest import row_digests

STATE: Final = "tolaria.system_state"


class PacketRows(Rows):
    """Columns of packets; a name that is no column is a step metric (contracts.md section 7).

    `loss` is the metric, else training_loss, else validation_loss. `gpu_utilisation` and `cpu_utilisation` (percent) come from
    the hardware context if it is of such a device, else from the metrics.
    """

    def _read_numbers(self, name: str) -> Floats:
        derived = _DERIVED.get(name)
        if derived is not None:
            return derived(self)
        if self.array(name) is not None:
            return super()._read_numbers(name)
        return self.metric(name)

    def metric(self, name: str) -> Floats:
        """Return one entry of `training_metrics`, float64 [size + 1]; NaN if the map lacks it."""
        rows, names, values = self._metrics
        found = np.full(self.size + 1, np.nan)
        code = names.words.index(name) if name in names.words else None
        if code is not None:
            at = np.flatnonzero(names.codes == code)
            found[rows[at]] = values[at]
        return found

    @cached_property
    def _metrics(self) -> tuple[Ints, Labels, Floats]:
        """The row, name and value of every entry of every map."""
        maps = self.array("training_metrics")
        if maps is None or not self.size:
            return np.zeros(0, dtype=np.int64), Labels(np.zeros(0, dtype=np.int64), ()), np.zeros(0)
        if not pa.types.is_map(maps.type):
            maps = maps.cast(pa.map_(pa.string(), pa.float32()))
        ends = np.asarray(maps.offsets, dtype=np.int64)
        span = slice(int(ends[0]), int(ends[-1]))
        coded = codes_of(maps.keys[span])
        names = Labels(coded.codes[:-1], coded.words)
        values = maps.items[span].to_numpy(zero_copy_only=False).astype(np.float64)
        return np.repeat(np.arange(self.size), lengths(ends)), names, values


def _loss(rows: PacketRows) -> Floats:
    return first_finite(rows.metric("loss"), rows.numbers("training_loss"), rows.numbers("validation_loss"))


def _utilisation(device: str, metric: str) -> Callable[[PacketRows], Floats]:
    def read(rows: PacketRows) -> Floats:
        kinds = rows.labels("hardware_context_device_type")
        of_device = np.array([*(word.lower() == device for word in kinds.words), False])[kinds.codes]
        sent = np.where(of_device, rows.numbers("hardware_context_utilization_percent"), np.nan)
        return first_finite(sent, rows.metric(metric))

    return read


_DERIVED: Final[Mapping[str, Callable[[PacketRows], Floats]]] = {
    "loss": _loss,
    "gpu_utilisation": _utilisation("cuda", "gpu_util_percent"),
    "cpu_utilisation": _utilisation("cpu", "cpu_util_percent"),
}


def first_finite(*choices: Floats) -> Floats:
    """Return, elementwise, the first choice that is finite, else NaN."""
    found = choices[-1]
    for choice in reversed(choices[:-1]):
        found = np.where(np.isfinite(choice), choice, found)
    return found


def log_ratio(values: Floats, others: Floats) -> Floats:
    """Return, elementwise, ln(value / other); NaN unless both are above 0 and finite."""
    sound = (values > 0.0) & (others > 0.0) & np.isfinite(values) & np.isfinite(others)
    return np.where(sound, np.log(np.where(sound, values, 1.0) / np.where(sound, others, 1.0)), np.nan)


class Packets:
    """The training states of a block, ordered by (training_run_id, timestamp_ns, packet digest); no completion markers.

    `run` int64 [P] numbers `runs` (sorted); `times` int64 [P]; `run_ptr` int64 [R + 1] bounds each run's packets.
    """

    def __init__(self, table: pa.Table) -> None:
        """Take packets in any order; of two copies of one key, keep the one with the lowest digest."""
        self.rows = _ordered(table)
        self.size = self.rows.size
        self.run_labels = self.rows.labels("training_run_id")
        self.runs = tuple(sorted(self.run_labels.words))
        codes_of = {run: code for code, run in enumerate(self.runs)}
        self.run: Ints = self.run_labels.translate(codes_of)[:-1]
        self.times: Ints = self.rows.times("timestamp_ns")
        self.run_ptr: Ints = np.searchsorted(self.run, np.arange(len(self.runs) + 1))
        self._codes_of = codes_of
        ids = self.rows.labels("packet_id")
        self._packet_codes = {word: code for code, word in enumerate(ids.words)}
        self._span = len(ids.words) + 1
        self._id_codes = ids.codes[:-1]

    @cached_property
    def _index(self) -> AsOf:
        return AsOf(self.run * self._span + self._id_codes, self.times)

    def run_codes(self, labels: Labels) -> Ints:
        """Return the run codes of labels; -1 for runs without packets here."""
        return labels.translate(self._codes_of)

    def find(self, rows: Rows) -> Ints:
        """Return the packet number (int64 [n]) of each telemetry row; -1 if its packet is not here."""
        if not rows.size or not self.size:
            return np.full(rows.size, -1, dtype=np.int64)
        run = self.run_codes(rows.labels("training_run_id"))[:-1]
        packet = rows.labels("packet_id").translate(self._packet_codes)[:-1]
        if self.size == 1:
            # no search is needed: with one packet, both codes are 0 if the row is the packet's
            return np.where((run == 0) & (packet == 0) & (rows.times("timestamp_ns") == self.times[0]), 0, -1)
        group = np.where((run >= 0) & (packet >= 0), run * self._span + packet, -1)
        return self._index.exact(group, rows.times("timestamp_ns"))


def _ordered(table: pa.Table) -> PacketRows:
    """Return the training states in order, without completion markers and second copies."""
    rows = PacketRows(table, STATE)
    if rows.size == 1 and not rows.numbers("is_completion")[0] > 0:
        return rows
    runs = rows.labels("training_run_id")
    place = {word: code for code, word in enumerate(sorted(runs.words))}
    run, times = runs.translate(place)[:-1], rows.times("timestamp_ns")
    order = np.lexsort((times, run)) if rows.size > 1 else np.arange(rows.size)
    order = order[~(rows.numbers("is_completion")[:-1] > 0)[order]]
    tied = (run[order][1:] == run[order][:-1]) & (times[order][1:] == times[order][:-1])
    if tied.any():
        order = _break_ties(table, order, run, times, tied)
    if len(order) == table.num_rows and np.array_equal(order, np.arange(len(order))):
        return rows
    return PacketRows(table.take(pa.array(order)), STATE)


def _break_ties(table: pa.Table, order: Ints, run: Ints, times: Ints, tied: np.ndarray) -> Ints:
    """Order packets of equal run and time by their digest, and keep the first copy of each key."""
    members = np.append(tied, False) | np.append(False, tied)
    digests = np.full(table.num_rows, "", dtype=object)
    rows = order[members]
    digests[rows] = row_digests(table.take(pa.array(rows)))
    rank = np.zeros(table.num_rows, dtype=np.int64)
    rank[rows] = np.argsort(np.argsort(digests[rows]))
    order = order[np.lexsort((rank[order], times[order], run[order]))]
    ids = Rows(table).labels("packet_id").codes[order]
    keys = np.stack([run[order], times[order], ids], axis=1)
    return order[np.sort(np.unique(keys, axis=0, return_index=True)[1])]
