"""Define the facts that the panel and the metrics show, as plain values. Times are UTC; None is unknown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

OPERATOR: Final = "the operator of this pipeline"  # whom to ask about what no upstream system sent
Severity = Literal["ERROR", "WARN"]
FeedState = Literal["current", "silent", "unknown", "sample"]


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; bounds are None if it has none."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Feed:
    """What one upstream system sends. `lag_seconds`: from its newest record to the arrival of the export that came last."""

    system: str
    state: FeedState
    last_seen: datetime | None
    exports: int
    exports_last_day: int
    rows: int
    newest_record: datetime | None
    rejected: int

    @property
    def lag_seconds(self) -> float | None:
        """Seconds; None if nothing arrived, or no record has a time."""
        if self.last_seen is None or self.newest_record is None:
            return None
        return max((self.last_seen - self.newest_record).total_seconds(), 0.0)


@dataclass(frozen=True)
class Rejected:
    """Records of one rejects table that were refused for one reason, and the system that sent them."""

    system: str
    table: str
    reason: str
    records: int


@dataclass(frozen=True)
class Gap:
    """What one system left out of one key, over all training runs that are not retired."""

    system: str
    key: str
    mandatory: bool
    reason: str
    runs: tuple[str, ...]
    since: datetime
    missing: int
    elements: int

    @property
    def share(self) -> float | None:
        """Missing of all elements in the runs with this gap; None if these have no such element at all."""
        return self.missing / self.elements if self.missing and self.elements else None


@dataclass(frozen=True)
class KeyCoverage:
    """Coverage of one key over all runs; `ratio` is None without elements."""

    key: str
    family: str
    system: str
    mandatory: bool
    measured: int
    elements: int
    ratio: float | None


@dataclass(frozen=True)
class Run:
    """Coverage of one training run: by family (None without elements), mean over keys, and what is missing."""

    run_id: str
    coverage: float
    families: Mapping[str, float | None]
    mandatory_missing: tuple[str, ...]
    families_under: tuple[str, ...]
    gaps: int
    systems: tuple[str, ...]


@dataclass(frozen=True)
class CoveragePoint:
    """Coverage after one rebuild: mean over keys, and over the mandatory ones."""

    rebuild: str
    at: datetime
    mean: float
    mandatory: float | None


@dataclass(frozen=True)
class Retired:
    """A training run that an operator took out."""

    run_id: str
    reason: str
    at: datetime
    by: str


@dataclass(frozen=True)
class RegistrySize:
    """One registry: entries, how many of them are retired, and how many it can hold."""

    name: str
    version: int
    size: int
    capacity: int
    retired: int

    @property
    def used(self) -> float:
        """Share of the capacity."""
        return self.size / self.capacity


@dataclass(frozen=True)
class Norm:
    """One line of `gnn_norms.json`."""

    name: str
    kind: Literal["step metric", "catalogue prior"]
    mean: float
    deviation: float
    count: int | None
    at: datetime | None


@dataclass(frozen=True)
class GateResult:
    """One gate of promotion: the figure against its threshold, in words."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Build:
    """One published bundle and its figures; a figure that was not computed is absent."""

    build_id: str
    built_at: datetime
    promoted_at: datetime | None
    gap_closed: Mapping[str, Interval]
    ceiling: float | None
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Serving:
    """What serves, and what keeps the newest bundle from serving (`reasons`, empty if it serves or there is none)."""

    build_id: str | None = None
    since: datetime | None = None
    promoted_by: str = ""
    waived: Mapping[str, str] = field(default_factory=dict)
    newest: str | None = None
    newest_at: datetime | None = None
    gates: tuple[GateResult, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckState:
    """The newest evaluation of one asset check. `since`: the first of its unbroken series of equal results.

    `system`: the upstream system that the check names, "" if none or several.
    """

    asset: str
    check: str
    passed: bool
    severity: Severity
    description: str
    at: datetime
    since: datetime
    system: str = ""


@dataclass(frozen=True)
class Rebuild:
    """One run that wrote to the home; `seconds` of the one that writes the panel are those until then.

    `failed_steps`: step -> its error, as far as they are known.
    """

    run_id: str
    job: str
    status: str
    started: datetime
    seconds: float
    failed_steps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OpenAlert:
    """One problem that has not ended; `system` is whom to ask."""

    asset: str
    check: str
    problem: str
    severity: Severity
    since: datetime
    text: str
    system: str


@dataclass(frozen=True)
class PanelData:
    """Everything that the panel and the metrics show. `unreadable`: parts of the home that are damaged, and how."""

    home: Path
    made_at: datetime
    holds_sample: bool
    max_age_days: float
    thresholds: Mapping[str, float]
    serving: Serving = Serving()
    alerts: tuple[OpenAlert, ...] = ()
    gaps: tuple[Gap, ...] = ()
    feeds: tuple[Feed, ...] = ()
    rejects: tuple[Rejected, ...] = ()
    keys: tuple[KeyCoverage, ...] = ()
    runs: tuple[Run, ...] = ()
    history: tuple[CoveragePoint, ...] = ()
    retired: tuple[Retired, ...] = ()
    registries: tuple[RegistrySize, ...] = ()
    norms: tuple[Norm, ...] = ()
    builds: tuple[Build, ...] = ()
    checks: tuple[CheckState, ...] = ()
    stages: Mapping[str, datetime] = field(default_factory=dict)
    rebuilds: tuple[Rebuild, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    signals: tuple[tuple[str, float, Mapping[str, str]], ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @property
    def young(self) -> bool:
        """Whether nothing has ever arrived here."""
        return not any(feed.exports for feed in self.feeds) and not self.rows
