"""Read what a run found from the published tables: the closing summary of `tamiyo run` as data."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from gnn.coverage.ratios import coverage_figures, key_totals, ratios
from lake.exports.folders import Exports
from lake.rejects import Rejected, rejects_by_reason
from lake.retirement import Retirements
from lake.settings import Settings, resolve
from lake.store.table_store import TableStore
from schemas.contracts import TABLES
from tamiyo.execution import Outcome


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Family(_Frozen):
    """Coverage of one family, and the systems that left gaps in it, most missing first."""

    family: str
    ratio: float
    missing_by_system: dict[str, int]


class FailedCheck(_Frozen):
    """One failed check of the run."""

    asset: str
    check: str
    severity: str
    description: str


class Build(_Frozen):
    """The bundle of this state: its figures, and whether it serves."""

    build_id: str
    path: str
    promoted: bool
    reasons: list[str]
    heads: dict[str, str]
    horizon_steps: int | None
    unusable_reports: dict[str, int]
    metrics: dict[str, Any]
    metrics_missing: dict[str, str]


class Summary(_Frozen):
    """The closing summary of one `tamiyo run`."""

    exports: str
    exports_are_sample: bool
    home: str
    training_runs: int
    retired: dict[str, str] = {}
    rows: dict[str, int]
    rejects: list[Rejected]
    unknown_fields: dict[str, int]
    unread: dict[str, str] = {}
    rebuilt: dict[str, str] = {}
    coverage: float | None
    families: list[Family]
    mandatory_under: dict[str, float]
    examples: int
    unusable_reports: dict[str, int]
    build: Build | None
    failed_checks: list[FailedCheck]
    failed_steps: dict[str, str]
    seconds: float
    next: list[str]


def summarize(settings: Settings, outcome: Outcome, seconds: float) -> Summary:
    """Read the summary from the tables of a home, with the outcome of the run that wrote them."""
    tables = TableStore(settings.home)
    by_key = key_totals(tables) if tables.exists("coverage.by_key") else None
    figures = coverage_figures(by_key) if by_key is not None else None
    build = _build(settings, outcome)
    return Summary(
        exports=str(settings.exports),
        exports_are_sample=settings.exports_are_sample,
        home=str(settings.home),
        training_runs=_training_runs(tables),
        retired={run: one.reason for run, one in Retirements(settings.home).current().items()},
        rows={name: count for name in TABLES if (count := tables.count(name))},
        rejects=rejects_by_reason(tables),
        unknown_fields=dict(sorted(outcome.unknown_fields.items(), key=lambda item: (-item[1], item[0]))),
        unread={file.file: file.reason for file in Exports(settings.exports).unread()} | dict(outcome.failed_exports),
        rebuilt=dict(outcome.rebuilt),
        coverage=figures.mean if figures else None,
        families=_families(by_key),
        mandatory_under=_mandatory_under(by_key, settings.mandatory_coverage),
        examples=tables.count("training.examples"),
        unusable_reports=build.unusable_reports if build else {},
        build=build,
        failed_checks=[
            FailedCheck(asset=c.asset, check=c.check, severity=c.severity, description=c.description)
            for c in outcome.failed_checks
        ],
        failed_steps=dict(outcome.failed_steps),
        seconds=seconds,
        next=_next(settings.home),
    )


def _training_runs(tables: TableStore) -> int:
    return len(tables.read("tolaria.system_state", columns=["training_run_id"]).column(0).unique())


def _mandatory_under(by_key: pa.Table | None, threshold: float) -> dict[str, float]:
    if by_key is None:
        return {}
    rows = ratios(by_key.filter(pc.field("mandatory")), ["key"])
    return {row["key"]: row["ratio"] for row in rows if row["ratio"] < threshold}


def _families(by_key: pa.Table | None) -> list[Family]:
    """Return families worst first; the missing elements of each are counted by the system that should have sent them."""
    if by_key is None:
        return []
    missing: dict[str, dict[str, int]] = {}
    summed = by_key.group_by(["family", "system"]).aggregate([("measured", "sum"), ("elements", "sum")])
    for row in summed.to_pylist():
        gap = row["elements_sum"] - row["measured_sum"]
        if gap:
            missing.setdefault(row["family"], {})[row["system"]] = gap
    return [
        Family(
            family=row["family"],
            ratio=row["ratio"],
            missing_by_system=dict(sorted(missing.get(row["family"], {}).items(), key=lambda gap: -gap[1])),
        )
        for row in ratios(by_key, ["family"])
    ]


def _build(settings: Settings, outcome: Outcome) -> Build | None:
    """Return the bundle of this run, with the reasons that keep it from serving; None if none was built."""
    if outcome.build_id is None:
        return None
    from gnn.bundle.report import build_report

    report = build_report(settings.home, outcome.build_id, settings.gates)
    reasons = [] if report.serving else (report.reasons or [outcome.refusal])
    return Build(
        build_id=outcome.build_id,
        path=str(report.path),
        promoted=report.serving,
        reasons=reasons,
        heads=report.heads,
        horizon_steps=report.manifest.policy.horizon_steps,
        unusable_reports=report.manifest.training.get("unusable_reports", {}),
        metrics=report.manifest.metrics,
        metrics_missing=report.manifest.metrics_missing,
    )


def _next(home: Path) -> list[str]:
    shown = home.relative_to(Path.cwd()) if home.is_relative_to(Path.cwd()) else home
    option = "" if home == resolve().home else f" --home {shown}"
    return [
        "make ui — the assets, their checks and their metadata in Dagster",
        f"duckdb {shown / 'warehouse.duckdb'} — every table in SQL",
        f"tamiyo coverage{option} — every feature, worst first, with the system to ask",
        f"tamiyo rejects{option} — what was not kept, and why",
    ]
