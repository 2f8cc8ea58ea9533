"""Map seed states to rows: from their fields, else from the metrics map of older exports."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contracts import TABLES, Column, Presence
from schemas.decode.shape.collector import Collector, Origin
from schemas.decode.shape.columns import truth
from schemas.decode.shape.constant import nulls
from schemas.decode.shape.map_entries import key_codes, map_entries
from schemas.decode.shape.rows import RawColumn, emit, shape_table

_NAME: Final = "kasmina.seed_state"
_FALLBACKS: Final = {
    "alpha": "alpha",
    "risk_tolerance": "risk_tolerance",
    "alpha_schedule_total_steps": "alpha_total_steps",
    "alpha_schedule_temperature": "alpha_temperature",
}


def seed_columns(collector: Collector, raw: RawColumn, origin: Origin, derived: Mapping[str, pa.Array]) -> None:
    """Emit kasmina.seed_state rows from raw SeedState columns; `derived` holds columns that the packet or folder gives."""
    rows = len(origin.positions)
    table = TABLES[_NAME]
    columns, found = shape_table(table, raw, rows, derived)
    metrics = MapColumn(columns["metrics"])
    for name, metric in _FALLBACKS.items():
        column = table.column[name]
        values = metrics.values(metric)
        if pa.types.is_integer(column.type):
            values = _whole(values)
        if values.null_count == rows:
            # no map has it, so the column stays as the field gives it
            continue
        unsent = pa.array(~_sent(column, raw(column.field_path), rows))
        columns[name] = pc.if_else(unsent, values.cast(column.type, safe=False), columns[name])
    columns["alpha_steps"] = _whole(metrics.values("alpha_steps"))
    columns["blend_allowed"] = pc.not_equal(metrics.values("blend_allowed"), 0.0)
    emit(collector, _NAME, columns, found, origin)


def _sent(column: Column, raw: pa.Array | None, rows: int) -> npt.NDArray[np.bool_]:
    """Return where the field was sent: valid, and not zero if the field has no presence. A NaN counts as sent."""
    if raw is None:
        return np.zeros(rows, np.bool_)
    valid = truth(pc.is_valid(raw))
    return valid if column.presence is Presence.EXPLICIT else valid & ~truth(pc.equal(raw, 0))


def _whole(values: pa.Array) -> pa.Array:
    """Return floats as the nearest int64; NULL if they do not fit."""
    numbers = np.asarray(values.to_numpy(zero_copy_only=False), np.float64)
    fitting = np.abs(numbers) < 2.0**62  # false for a NULL, which is NaN here
    return pa.array(np.rint(np.where(fitting, numbers, 0.0)).astype(np.int64), mask=~fitting)


class MapColumn:
    """A column of maps of floats, from which entries are taken by name."""

    def __init__(self, maps: pa.Array) -> None:
        self._rows = len(maps)
        self._owners, keys, self._items = map_entries(maps)
        self._codes, names = key_codes(self._owners, keys)
        self._names: list[str] = names.to_pylist()

    def values(self, name: str) -> pa.Array:
        """Return the entry `name` of each map as float64, NULL if there is none."""
        if name not in self._names:
            return nulls(self._rows, pa.float64())
        hits = np.flatnonzero(self._codes == self._names.index(name))
        values = np.zeros(self._rows, np.float64)
        absent = np.ones(self._rows, np.bool_)
        values[self._owners[hits]] = np.asarray(self._items.take(pa.array(hits)).cast(pa.float64()))
        absent[self._owners[hits]] = False
        return pa.array(values, pa.float64(), mask=absent)
