"""Metadata snapshots: what Urza, Urabrask, Tezzeret and Weatherlight have said, immutable, refreshed in the background."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gnn.bundle.read import Bundle
from gnn.coverage.sheets import missing_and_partial
from gnn.join.metadata import Metadata
from gnn.join.rows import Ints, Rows
from schemas.errors import ServingError, TamiyoError

_LOG = logging.getLogger(__name__)
MISSING = "missing"


@dataclass(frozen=True)
class Sheet:
    """The newest BSDS of one blueprint at a time; fields that it lacks (all, without a sheet) are `missing`.

    `known`: there is a sheet; `partial`: there is one and it lacks fields (`gnn.coverage.sheets`).
    """

    hazard_band: str = MISSING
    handling_class: str = MISSING
    resource_profile: str = MISSING
    provenance: str = MISSING
    risk: float | None = None
    known: bool = False
    partial: bool = False


@dataclass(frozen=True)
class Snapshot:
    """One immutable snapshot, encoded with one bundle's registries and norms; `taken_at_ns` is when it was read."""

    metadata: Metadata
    build_id: str
    taken_at_ns: int

    @classmethod
    def of(cls, bundle: Bundle, tables: Mapping[str, pa.Table], taken_at_ns: int | None = None) -> "Snapshot":
        """Compile contract tables by name (the urza, urabrask, tezzeret, weatherlight and telemetry ones are read)."""
        return cls(Metadata(tables), bundle.build_id, time.time_ns() if taken_at_ns is None else taken_at_ns)

    def sheet(self, blueprint_id: str | None, at_ns: int) -> Sheet:
        """The newest sheet of that blueprint that is not newer than `at_ns`."""
        code = self.metadata.codes_of.get(blueprint_id or "", -1)
        sheets, found = self.metadata.sheets.rows, self.metadata.sheets.newest(np.array([code]), np.array([at_ns]))
        missing, partial = missing_and_partial(sheets, found)
        if missing[0]:
            return Sheet()
        row = int(found[0])
        risk = float(sheets.numbers("risk_score")[row])
        return Sheet(
            hazard_band=_word(sheets, "hazard_band", row),
            handling_class=_word(sheets, "handling_class", row),
            resource_profile=_word(sheets, "resource_profile", row),
            provenance=_word(sheets, "provenance", row),
            risk=risk if np.isfinite(risk) else None,
            known=True,
            partial=bool(partial[0]),
        )

    def quarantined(self, blueprints: tuple[str, ...], at_ns: int) -> list[bool]:
        """Which of those kernels must not be grafted: their sheet says QUARANTINE, or their descriptor quarantine_only."""
        codes: Ints = np.array([self.metadata.codes_of.get(name, -1) for name in blueprints], dtype=np.int64)
        sheets = self.metadata.sheets.newest(codes, np.full(len(codes), at_ns))
        handling = self.metadata.sheets.rows.labels("handling_class")
        catalogue = self.metadata.catalogue
        record = self.metadata.catalogue.records.newest(codes, np.full(len(codes), at_ns))
        only = catalogue.blueprints.numbers("descriptor_quarantine_only")[catalogue.records.row[record]]
        by_sheet = [handling.words[c] == "QUARANTINE" if c >= 0 else False for c in handling.codes[sheets].tolist()]
        return [sheet or flag == 1.0 for sheet, flag in zip(by_sheet, only.tolist(), strict=True)]


def _word(rows: Rows, column: str, row: int) -> str:
    labels = rows.labels(column)
    code = int(labels.codes[row])
    return labels.words[code] if code >= 0 else MISSING


class SnapshotCache:
    """Keeps the newest snapshot; `read` does its I/O in a thread of its own, never in a decision.

    A refresh that fails is logged and the last snapshot stays: its age, which every command carries, then grows.
    """

    def __init__(self, bundle: Bundle, read: Callable[[], Mapping[str, pa.Table]], every_s: float = 5.0) -> None:
        """`read` returns contract tables by name; the first snapshot is taken here, and an error in it is raised."""
        self._bundle, self._read, self._every_s = bundle, read, every_s
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
        """Stop refreshing and wait for the thread."""
        self._stop.set()
        self._thread.join()

    def _take(self) -> Snapshot:
        taken = time.time_ns()
        return Snapshot.of(self._bundle, self._read(), taken)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.refresh()
            except (TamiyoError, OSError, pa.ArrowException) as error:
                _LOG.warning("metadata snapshot stays as of %d: %s", self._current.taken_at_ns, error)


def same_build(snapshot: Snapshot, bundle: Bundle) -> None:
    """ServingError where the snapshot was encoded with another bundle's registries and norms."""
    if snapshot.build_id != bundle.build_id:
        raise ServingError(
            f"metadata: expected a snapshot of build {bundle.build_id}, found one of {snapshot.build_id}; "
            "take it with Snapshot.of(policy.bundle, tables)"
        )
