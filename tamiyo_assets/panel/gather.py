"""Gather the facts of the panel and the metrics from a home alone: published files and tables. Writes nothing.

A part that is damaged is named in `unreadable` and left empty: the page that a person needs at night is never refused for it.
"""

import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from gnn.norms.published import load as load_norms
from gnn.registry.refresh import load_records
from lake.alert_outbox import AlertOutbox
from lake.durable.strict_json import read_object
from lake.settings import ORIGIN, Settings
from lake.store.table_store import TableStore
from schemas.derived.tables import DERIVED
from schemas.errors import StorageError, TamiyoError
from tamiyo_assets.panel import of_bundles, of_coverage, of_feeds
from tamiyo_assets.panel.facts import OPERATOR, CheckState, Gap, Norm, OpenAlert, PanelData, RegistrySize, Rejected
from tamiyo_assets.panel.state import State, read_state

FRESHNESS_HOURS: Final = "TAMIYO_FRESHNESS_HOURS"
_DEFAULT_HOURS: Final = 36.0
Part = TypeVar("Part")
_NO_REJECTS: Final[tuple[Rejected, ...]] = ()
_NO_GAPS: Final[tuple[Gap, ...]] = ()


def gather(settings: Settings, now: datetime | None = None) -> PanelData:
    """Read a home, a young one too, as of `now` (default: the present)."""
    home, now = settings.home, now or datetime.now(UTC)
    tables: TableStore = TableStore(home, DERIVED).held()
    damaged: dict[str, str] = {}

    def part(name: str, read: Callable[[], Part], otherwise: Part) -> Part:
        try:
            return read()
        except (TamiyoError, OSError) as error:
            damaged[name] = str(error)
            return otherwise

    is_sample = part("origin", lambda: holds_sample(home), False)
    state = part("checks and rebuilds", lambda: read_state(home), State())
    rejects = part("rejects", lambda: of_feeds.rejects_of(tables), _NO_REJECTS)
    gaps = part("gaps", lambda: of_coverage.gaps_of(tables), _NO_GAPS)
    window = timedelta(hours=freshness_hours())
    family = settings.family_coverage
    return PanelData(
        home=home,
        made_at=now,
        holds_sample=is_sample,
        max_age_days=settings.max_age / timedelta(days=1),
        thresholds={"mandatory_coverage": settings.mandatory_coverage, "family_coverage": family},
        serving=part("serving", lambda: of_bundles.serving_of(home, settings.gates), PanelData.serving),
        alerts=open_alerts(part("alerts", lambda: _told(home), ()), state.checks),
        gaps=gaps,
        feeds=part("feeds", lambda: of_feeds.feeds_of(tables, rejects, now, window, is_sample=is_sample), ()),
        rejects=rejects,
        keys=part("coverage", lambda: of_coverage.keys_of(tables), ()),
        runs=part("training runs", lambda: of_coverage.runs_of(tables, gaps, family), ()),
        history=part("coverage history", lambda: of_coverage.history_of(tables), ()),
        retired=part("retired runs", lambda: of_coverage.retired_of(tables), ()),
        registries=part("registries", lambda: _registries(home), ()),
        norms=part("norms", lambda: _norms(home), ()),
        builds=part("builds", lambda: of_bundles.builds_of(home), ()),
        checks=state.checks,
        stages=state.stages,
        rebuilds=state.rebuilds,
        rows=part("tables", lambda: {name: tables.count(name) for name in tables.names()}, {}),
        signals=part("signals", lambda: _signals(tables), ()),
        unreadable=damaged,
    )


def freshness_hours() -> float:
    """Return the hours after which a feed counts as silent: `TAMIYO_FRESHNESS_HOURS`, 36 if that is unset or not a number."""
    try:
        return float(os.environ.get(FRESHNESS_HOURS) or _DEFAULT_HOURS)
    except ValueError:
        return _DEFAULT_HOURS


def holds_sample(home: Path) -> bool:
    """Return whether what arrived in a home is the committed sample."""
    path = home / ORIGIN
    return path.exists() and read_object(path, StorageError).get("sample") is True


def open_alerts(told: Iterable[OpenAlert], checks: Iterable[CheckState]) -> tuple[OpenAlert, ...]:
    """Return open problems, ERROR first: alerts that were announced, and failed checks that were not announced yet.

    An alert whose check passes by now has ended, whether or not its end was announced.
    """
    states = {(check.asset, check.check): check for check in checks}
    passed = {scope for scope, check in states.items() if check.passed}
    found = [alert for alert in told if (alert.asset, alert.check) not in passed]
    known = {(alert.asset, alert.check) for alert in found}
    found += [_alert(check) for scope, check in states.items() if scope not in passed | known]
    return tuple(sorted(found, key=lambda alert: (alert.severity, alert.since)))


def _told(home: Path) -> tuple[OpenAlert, ...]:
    """Return the open alerts in the outbox."""
    return tuple(
        OpenAlert(
            asset=alert.asset,
            check=alert.check,
            problem=alert.problem,
            severity="WARN" if alert.severity == "WARN" else "ERROR",
            since=datetime.fromisoformat(alert.since),
            text=alert.what,
            system=alert.system if alert.system in of_feeds.SYSTEMS else OPERATOR,
        )
        for alert in AlertOutbox(home, None).read().failing()
    )


def _alert(check: CheckState) -> OpenAlert:
    """Return a failed check as an alert."""
    system = check.system or check.asset.partition("/")[0]
    return OpenAlert(
        asset=check.asset,
        check=check.check,
        problem=check.check,
        severity=check.severity,
        since=check.since,
        text=check.description,
        system=system if system in of_feeds.SYSTEMS else OPERATOR,
    )


def _registries(home: Path) -> tuple[RegistrySize, ...]:
    records = load_records(home / "registries")
    return tuple(
        RegistrySize(name, record.version, record.size, record.capacity, len(record.retired))
        for name, record in sorted(records.items(), key=lambda item: -item[1].size / item[1].capacity)
    )


def _norms(home: Path) -> tuple[Norm, ...]:
    found = load_norms(home)
    if found is None:
        return ()
    at = {
        name: None if norm.timestamp_ns is None else of_coverage.time_of(norm.timestamp_ns)
        for name, norm in found.metrics.items()
    }
    metrics = [Norm(n, "step metric", norm.mean, norm.var**0.5, norm.count, at[n]) for n, norm in found.metrics.items()]
    priors = [Norm(n, "catalogue prior", norm.mean, norm.var**0.5, None, None) for n, norm in found.priors.items()]
    return (*metrics, *priors)


def _signals(tables: TableStore) -> tuple[tuple[str, float, dict[str, str]], ...]:
    """Return published telemetry: name, value, and attributes with the level of an event."""
    name = "telemetry.feature_coverage"
    rows = tables.read(name).to_pylist() if tables.exists(name) else []
    return tuple(
        (row["name"], row["value"], dict(row["attributes"]) | ({"level": row["level"]} if row["level"] else {})) for row in rows
    )
