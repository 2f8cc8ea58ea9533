"""Pick the winner among records of one key (contracts.md section 1), independent of order, grouping and repetition."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contracts import Table
from schemas.digest import row_digests


@dataclass(frozen=True)
class Merged:
    """`rows`: one per key. `duplicates`: how many rows lost to a winner or repeated it."""

    rows: pa.Table
    duplicates: int


def merge(table: Table, old: pa.Table | None, new: pa.Table) -> Merged:
    """Return winners of `old` and `new`, which hold the columns of `table.arrow_schema`.

    The newest event time wins. Ties are broken by, in this order: the newest arrival and position, if rows are ordered by
    arrival and have no event time; the table's rank of sources; more measured values, so that a re-export closes a gap whether
    it comes before or after the incomplete copy; the lowest digest of the canonical row. A winner carries the lowest
    (export_digest, position) of its equal copies.
    """
    both = pa.concat_tables([old.select(new.column_names), new]) if old is not None and old.num_rows else new
    repeated = _repeated(table, both)
    if not repeated.any():
        return Merged(both, 0)
    single = both.filter(pa.array(~repeated.to_numpy()))
    several = both.filter(pa.array(repeated.to_numpy()))
    winners = _winners(table, several)
    rows = pa.concat_tables([single, winners]).combine_chunks()
    return Merged(rows, both.num_rows - rows.num_rows)


def _keys(table: Table, rows: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(rows.select(list(table.key)))
    return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()


def _repeated(table: Table, rows: pa.Table) -> pl.Series:
    """Return, for each row, whether its key occurs more than once (bool [rows])."""
    return _keys(table, rows).is_duplicated()


def _winners(table: Table, rows: pa.Table) -> pa.Table:
    """Return the winner of each key of `rows`, with the lowest provenance of its equal copies."""
    frame = _keys(table, rows).with_columns(
        _row=pl.int_range(rows.num_rows, dtype=pl.Int64),
        _measured=pl.Series(measured_values(table, rows), dtype=pl.Int64),
        _digest=pl.Series(row_digests(rows), dtype=pl.String),
        _export=_series(rows, "export_digest"),
        _position=_series(rows, "position"),
        _seen=_series(rows, "arrival") if table.by_arrival else pl.lit(None, pl.Int64),
        **_ranks(table, rows),
    )
    order = ["_time", "_arrival", "_within", "_rank", "_measured", "_digest", "_export", "_position", "_seen"]
    ranked = frame.sort(order, descending=[True, True, True, False, True, False, False, False, True], nulls_last=True)
    best = ranked.unique(subset=list(table.key), keep="first", maintain_order=True).sort("_row")
    return rows.take(pa.array(best["_row"].to_numpy()))


def measured_values(table: Table, rows: pa.Table) -> npt.NDArray[np.int64]:
    """Count the values of each row (int64 [rows]): 1 for each scalar or list that is not NULL, 1 for each map entry."""
    found = np.zeros(rows.num_rows, np.int64)
    for name in table.names:
        column = rows.column(name)
        held = pc.is_valid(column).to_numpy().astype(np.int64)
        if pa.types.is_map(column.type):
            held *= np.concatenate([held[:0], *(np.diff(chunk.offsets) for chunk in column.chunks)])
        found += held
    return found


def _series(rows: pa.Table, name: str) -> pl.Series:
    found = pl.from_arrow(rows.column(name))
    return found if isinstance(found, pl.Series) else found.to_series()


def _ranks(table: Table, rows: pa.Table) -> dict[str, pl.Series]:
    """Return the columns that order rows of one key before their digest: event time, arrival and position, source rank."""
    none = pl.repeat(None, rows.num_rows, dtype=pl.Int64, eager=True)
    time = none if table.event_time is None else _series(rows, table.event_time)
    arrival, within, rank = none, none, none
    if table.by_arrival:
        arrival = _series(rows, "arrival").zip_with(time.is_null(), none)
        within = _series(rows, "position").zip_with(time.is_null(), none)
    if table.ranked is not None:
        column, values = table.ranked
        places = {value: place for place, value in enumerate(values)}
        rank = _series(rows, column).replace_strict(places, default=len(values), return_dtype=pl.Int64)
    return {"_time": time, "_arrival": arrival, "_within": within, "_rank": rank}
