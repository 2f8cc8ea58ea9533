"""Keep immutable snapshots of the data from Urza, Urabrask, Tezzeret and Weatherlight, refreshed in the background."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa

from gnn.bundle.read import Bundle
from gnn.coverage.sheets import missing_and_partial
from gnn.join.metadata import Metadata
from gnn.join.rows import Ints, Rows
from schemas.errors import TamiyoError

_LOG = logging.getLogger(__name__)
MISSING = "missing"
_PATIENCE_S = 2.0


@dataclass(frozen=True)
class Sheet:
    """The newest safety sheet (BSDS) of one blueprint at some time; fields that it lacks are `missing`, all without a sheet.

    `known`: there is a sheet. `partial`: there is one, but it lacks fields (`gnn.coverage.sheets`).
    """

    hazard_band: str = MISSING
    handling_class: str = MISSING
    resource_profile: str = MISSING
    provenance: str = MISSING
    risk: float | None = None
    known: bool = False
    partial: bool = False


_NO_SHEET: Final = Sheet()


@dataclass(frozen=True)
class Snapshot:
    """One immutable snapshot of contract tables for the bundle `build_id`, read at `taken_at_ns` [ns since 1970 UTC]."""

    metadata: Metadata
    build_id: str
    taken_at_ns: int

    @classmethod
    def of(cls, bundle: Bundle, tables: Mapping[str, pa.Table], taken_at_ns: int | None = None) -> "Snapshot":
        """Compile contract tables by name; those of urza, urabrask, tezzeret, weatherlight and telemetry are read."""
        return cls(Metadata(tables), bundle.build_id, time.time_ns() if taken_at_ns is None else taken_at_ns)

    def sheet(self, blueprint_id: str | None, at_ns: int) -> Sheet:
        """Return the newest sheet of that blueprint that is not newer than `at_ns`."""
        return self.sheets((blueprint_id or "",), at_ns)[0]

    def sheets(self, blueprints: tuple[str, ...], at_ns: int) -> tuple[Sheet, ...]:
        """Return the newest sheet of each blueprint that is not newer than `at_ns`."""
        index = self.metadata.sheets
        codes: Ints = np.array([self.metadata.codes_of.get(name, -1) for name in blueprints], dtype=np.int64)
        rows = index.newest(codes, np.full(len(codes), at_ns))
        missing, partial = missing_and_partial(index.rows, rows)
        return tuple(
            _NO_SHEET if gone else self._sheet(row, lacking)
            for row, gone, lacking in zip(rows.tolist(), missing.tolist(), partial.tolist(), strict=True)
        )

    def _sheet(self, row: int, partial: bool) -> Sheet:
        """Return the sheet in that row of `urabrask.bsds`; made once per row of the metadata."""
        known = self.metadata.known
        found: Sheet | None = known.get(("sheet", row))
        if found is None:
            found = known["sheet", row] = _sheet(self.metadata.sheets.rows, row, partial)
        return found

    def quarantine_only(self, blueprints: tuple[str, ...], at_ns: int) -> list[bool]:
        """Return whether the descriptor of each blueprint, as of `at_ns`, says quarantine_only."""
        codes: Ints = np.array([self.metadata.codes_of.get(name, -1) for name in blueprints], dtype=np.int64)
        records = self.metadata.catalogue.records
        only = records.rows.numbers("descriptor_quarantine_only")[
            records.row[records.newest(codes, np.full(len(codes), at_ns))]
        ]
        return [flag == 1.0 for flag in only.tolist()]


def _sheet(sheets: Rows, row: int, partial: bool) -> Sheet:
    risk = float(sheets.numbers("risk_score")[row])
    return Sheet(
        hazard_band=_word(sheets, "hazard_band", row),
        handling_class=_word(sheets, "handling_class", row),
        resource_profile=_word(sheets, "resource_profile", row),
        provenance=_word(sheets, "provenance", row),
        risk=risk if np.isfinite(risk) else None,
        known=True,
        partial=partial,
    )


def _word(rows: Rows, column: str, row: int) -> str:
    labels = rows.labels(column)
    code = int(labels.codes[row])
    return labels.words[code] if code >= 0 else MISSING


class SnapshotCache:
    """Keeps the newest snapshot; `read` does its I/O in a separate thread, never in a decision.

    If a refresh fails, it is logged and the last snapshot stays; its age, which every command carries, then grows.
    """

    def __init__(
        self,
        bundle: Bundle,
        read: Callable[[], Mapping[str, pa.Table]],
        every_s: float = 5.0,
        told: Callable[[Exception | None], None] = lambda fault: None,
    ) -> None:
        """Take the first snapshot; an error in it is raised. `read` returns contract tables by name.

        `told` is called after every later refresh, with the error that it failed with or None. If `read` returns the same
        object again, the snapshot stays, with a newer time.
        """
        self._bundle, self._read, self._every_s, self._told = bundle, read, every_s, told
        self._tables: Mapping[str, pa.Table] | None = None
        self._stop = threading.Event()
        self._current = self._take()
        self._thread = threading.Thread(target=self._run, name="tamiyo-metadata", daemon=True)
        self._thread.start()

    @property
    def current(self) -> Snapshot:
        """The newest snapshot."""
        return self._current

    def refresh(self) -> Snapshot:
        """Take a new snapshot now, in the caller's thread."""
        self._current = self._take()
        return self._current

    def close(self) -> None:
        """Stop refreshing, and wait a short time for a read in progress."""
        self._stop.set()
        self._thread.join(_PATIENCE_S)

    def _take(self) -> Snapshot:
        taken = time.time_ns()
        tables = self._read()
        if tables is self._tables:
            return replace(self._current, taken_at_ns=taken)
        found = Snapshot.of(self._bundle, tables, taken)
        self._tables = tables
        return found

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.refresh()
            except (TamiyoError, OSError, pa.ArrowException) as error:
                _LOG.warning("metadata snapshot stays as of %d: %s", self._current.taken_at_ns, error)
                self._told(error)
            else:
                self._told(None)
