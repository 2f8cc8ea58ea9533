"""Show the panel's facts as Prometheus metrics: `$TAMIYO_HOME/metrics.prom`, and `/metrics` of a service.

Times are seconds since 1970, so that an alert rule computes ages itself: a text file grows old. Every metric is always
declared, with HELP and TYPE, and has no sample if nothing is known.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from gnn.coverage.signals import BSDS_MISSING, BSDS_PARTIAL, COVERAGE, DEGRADED
from tamiyo_assets.panel.facts import PanelData

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily

METRICS: Final = "metrics.prom"
Sample = tuple[Sequence[str], float]


@dataclass(frozen=True)
class Metric:
    """One gauge: its name, HELP, label names, and how its samples (label values, value) follow from the facts."""

    name: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[PanelData], Iterator[Sample]]


def registry(data: PanelData) -> "CollectorRegistry":
    """Return a new Prometheus registry with every metric of a home."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

    class Home(Collector):
        def collect(self) -> "Iterator[GaugeMetricFamily]":
            return _families(data)

    found = CollectorRegistry(auto_describe=False)
    found.register(Home())
    return found


def text(data: PanelData) -> bytes:
    """Return the metrics in the Prometheus text format."""
    from prometheus_client import generate_latest

    return generate_latest(registry(data))


def _families(data: PanelData) -> "Iterator[GaugeMetricFamily]":
    from prometheus_client.core import GaugeMetricFamily

    for metric in ALL:
        family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, value in metric.samples(data):
            family.add_metric(labels, value)
        yield family


def _coverage(data: PanelData) -> Iterator[Sample]:
    for key in data.keys:
        if key.ratio is not None:
            yield (key.key, key.family, key.system, "true" if key.mandatory else "false"), key.ratio


def _signal(name: str) -> Callable[[PanelData], Iterator[Sample]]:
    return lambda data: (((), value) for known, value, _ in data.signals if known == name)


def _families_covered(data: PanelData) -> Iterator[Sample]:
    for name, value, _ in data.signals:
        family = name.removeprefix(f"{COVERAGE}.")
        if family != name:
            yield (family,), value


def _degraded(data: PanelData) -> Iterator[Sample]:
    for name, value, attributes in data.signals:
        if name == DEGRADED:
            yield (attributes.get("level", ""), attributes.get("threshold", "")), value


def _gaps(data: PanelData) -> Iterator[Sample]:
    counts = {(feed.system, mandatory): 0 for feed in data.feeds for mandatory in (False, True)}
    for gap in data.gaps:
        counts[gap.system, gap.mandatory] = counts.get((gap.system, gap.mandatory), 0) + len(gap.runs)
    for (system, mandatory), number in sorted(counts.items()):
        yield (system, "true" if mandatory else "false"), number


def _missing(data: PanelData) -> Iterator[Sample]:
    counts = {feed.system: 0 for feed in data.feeds}
    for gap in data.gaps:
        counts[gap.system] = counts.get(gap.system, 0) + gap.missing
    yield from (((system,), number) for system, number in sorted(counts.items()))


def _alerts(data: PanelData) -> Iterator[Sample]:
    for severity in ("ERROR", "WARN"):
        yield (severity,), sum(alert.severity == severity for alert in data.alerts)


def _checks(data: PanelData) -> Iterator[Sample]:
    for check in data.checks:
        yield (check.asset, check.check, check.severity), float(not check.passed)


def _times(times: Mapping[str, datetime]) -> Iterator[Sample]:
    return (((name,), at.timestamp()) for name, at in times.items())


def _once(value: Callable[[PanelData], float | None]) -> Callable[[PanelData], Iterator[Sample]]:
    """Return a sample without labels; none if the value is not known."""

    def samples(data: PanelData) -> Iterator[Sample]:
        found = value(data)
        if found is not None:
            yield (), found

    return samples


def _promoted(data: PanelData) -> float | None:
    return None if data.serving.since is None else data.serving.since.timestamp()


def _age(data: PanelData) -> float | None:
    return None if data.serving.since is None else (data.made_at - data.serving.since).total_seconds()


def _serving(data: PanelData) -> Iterator[Sample]:
    if data.serving.build_id is not None:
        yield (data.serving.build_id,), 1.0


def _gap_closed(data: PanelData) -> Iterator[Sample]:
    figures = data.builds[-1].gap_closed if data.builds else {}
    yield from (((name,), figure.mean) for name, figure in figures.items())


ALL: Final = (
    Metric(COVERAGE.replace(".", "_"), "Mean coverage over keys, from 0 to 1.", (), _signal(COVERAGE)),
    Metric("tamiyo_gnn_feature_coverage_family", "Coverage of a family, from 0 to 1.", ("family",), _families_covered),
    Metric(BSDS_MISSING.replace(".", "_"), "Blueprints of graphs without a safety data sheet.", (), _signal(BSDS_MISSING)),
    Metric(BSDS_PARTIAL.replace(".", "_"), "Blueprints of graphs with a partial safety data sheet.", (), _signal(BSDS_PARTIAL)),
    Metric(DEGRADED, "Mean coverage of mandatory keys, while it is too low.", ("level", "threshold"), _degraded),
    Metric(
        "tamiyo_coverage_ratio",
        "Measured elements of all elements of a key, from 0 to 1.",
        ("key", "family", "system", "mandatory"),
        _coverage,
    ),
    Metric("tamiyo_gaps", "Gaps, counted by key and training run, by the system to ask.", ("system", "mandatory"), _gaps),
    Metric("tamiyo_missing_elements", "Elements without a value, by the system to ask.", ("system",), _missing),
    Metric(
        "tamiyo_table_rows", "Rows of a table.", ("table",), lambda data: (((name,), rows) for name, rows in data.rows.items())
    ),
    Metric(
        "tamiyo_rejected_records",
        "Records that were refused, by the system that sent them.",
        ("system", "table", "reason"),
        lambda data: (((r.system, r.table, r.reason), r.records) for r in data.rejects),
    ),
    Metric(
        "tamiyo_feed_last_arrival_timestamp_seconds",
        "Time at which a system's newest export arrived.",
        ("system",),
        lambda data: _times({feed.system: feed.last_seen for feed in data.feeds if feed.last_seen is not None}),
    ),
    Metric(
        "tamiyo_feed_silent",
        "1 if a system sent nothing new for longer than the window; a system that was never seen has no sample.",
        ("system",),
        lambda data: (((f.system,), float(f.state == "silent")) for f in data.feeds if f.state in ("current", "silent")),
    ),
    Metric("tamiyo_check_failed", "1 if the newest evaluation of a check failed.", ("asset", "check", "severity"), _checks),
    Metric("tamiyo_open_alerts", "Problems that were told and have not ended.", ("severity",), _alerts),
    Metric(
        "tamiyo_stage_last_success_timestamp_seconds",
        "Time at which every asset of a stage had last been made.",
        ("stage",),
        lambda data: _times(data.stages),
    ),
    Metric(
        "tamiyo_rebuild_seconds",
        "Seconds of the newest run, by job.",
        ("job",),
        lambda data: (((job,), seconds) for job, seconds in {r.job: r.seconds for r in reversed(data.rebuilds)}.items()),
    ),
    Metric("tamiyo_serving", "1 if a bundle serves, else 0.", (), _once(lambda data: float(data.serving.build_id is not None))),
    Metric("tamiyo_serving_bundle_info", "The bundle that serves.", ("build_id",), _serving),
    Metric("tamiyo_serving_bundle_promoted_timestamp_seconds", "Time at which what serves was promoted.", (), _once(_promoted)),
    Metric("tamiyo_serving_bundle_age_seconds", "Age of what serves, when these metrics were written.", (), _once(_age)),
    Metric(
        "tamiyo_newest_bundle_refused",
        "1 if the newest bundle does not serve.",
        (),
        _once(lambda data: float(data.serving.newest not in (None, data.serving.build_id))),
    ),
    Metric(
        "tamiyo_model_gap_closed", "Share of the gap closed by the newest build, and its baselines.", ("model",), _gap_closed
    ),
    Metric(
        "tamiyo_registry_entries",
        "Entries of a registry.",
        ("registry",),
        lambda data: (((r.name,), r.size) for r in data.registries),
    ),
    Metric(
        "tamiyo_registry_capacity",
        "Most entries that a registry can hold.",
        ("registry",),
        lambda data: (((r.name,), r.capacity) for r in data.registries),
    ),
    Metric(
        "tamiyo_unreadable_parts", "Parts of the home that can't be read.", (), _once(lambda data: float(len(data.unreadable)))
    ),
    Metric(
        "tamiyo_metrics_timestamp_seconds",
        "Time at which these metrics were gathered.",
        (),
        _once(lambda d: d.made_at.timestamp()),
    ),
)
