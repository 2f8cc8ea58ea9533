"""Gather what serves, why the newest bundle does not, and the figures of every build."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from lake.builds import last_trained
from lake.durable.strict_json import read_object
from schemas.errors import BundleRejected
from schemas.printable import shortened
from tamiyo_assets.panel.facts import Build, GateResult, Interval, Serving

_BUILD_ID: Final = re.compile(r"[0-9a-f]{64}")
_BUILDS_SHOWN: Final = 30
_LONGEST: Final = 360  # most characters of the text that says what is wrong with a bundle


def serving_of(home: Path, thresholds: Mapping[str, float]) -> Serving:
    """Return what serves, since when, and what the gates say of the newest bundle."""
    newest = last_trained(home)
    if newest is None and not (home / "current").is_symlink():
        return Serving()
    from gnn.bundle import serving

    moves, now = _promotions(home), serving(home)
    own = [move for move in moves if move.get("build_id") == now]
    found: dict[str, Any] = {"build_id": now, "newest": newest}
    if own:
        who = str(own[-1].get("by", ""))
        found |= {"since": datetime.fromisoformat(own[-1]["at"]), "promoted_by": who, "waived": own[-1].get("waived") or {}}
    if newest is not None:
        gates, reasons = _judged(home, newest, thresholds, moves)
        found |= {"newest_at": _built_at(home, newest), "gates": gates, "reasons": () if newest == now else reasons}
    return Serving(**found)


def _judged(
    home: Path, build_id: str, thresholds: Mapping[str, float], moves: list[dict[str, Any]]
) -> tuple[tuple[GateResult, ...], tuple[str, ...]]:
    """Return the gates of a bundle, and everything that keeps it from serving."""
    from gnn.bundle import bundle_path, preflight
    from gnn.bundle.report import build_report

    try:
        report = build_report(home, build_id, thresholds)
    except BundleRejected as damage:
        return (), (_brief(str(damage), build_id),)
    gates = tuple(GateResult(gate.name, gate.passed, gate.detail) for gate in report.gates)
    reasons = [*report.reasons]
    last = moves[-1] if moves else {}
    if last.get("action") == "rollback" and last.get("previous") == build_id:
        reasons.append(f"it was rolled back at {last['at']}; `tamiyo promote {build_id[:16]}` serves it again")
    if not reasons and not report.serving:
        found = [str(mismatch) for mismatch in preflight(bundle_path(home, build_id)).mismatches]
        reasons += [_brief(f"preflight: {'; '.join(found)}", build_id)] if found else []
    return gates, tuple(reasons) or ("every gate passes: `tamiyo promote` serves it",)


def _brief(damage: str, build_id: str) -> str:
    """Return what is wrong with a bundle; of many mismatches the first ones."""
    short = shortened(damage, _LONGEST)
    return short if short == damage else f"{short} `tamiyo preflight {build_id[:16]}` lists all"


def builds_of(home: Path) -> tuple[Build, ...]:
    """Return the newest bundles, oldest first; manifests are read as plain JSON, so that other versions are shown too."""
    directory = home / "bundles"
    names = [path.name for path in directory.iterdir() if _BUILD_ID.fullmatch(path.name)] if directory.is_dir() else []
    promoted = {move["build_id"]: datetime.fromisoformat(move["at"]) for move in _promotions(home)} if names else {}
    dated = sorted((at, name) for name in names if (at := _built_at(home, name)) is not None)
    return tuple(_build(home, name, at, promoted.get(name)) for at, name in dated[-_BUILDS_SHOWN:])


def _build(home: Path, build_id: str, at: datetime, promoted_at: datetime | None) -> Build:
    metrics: Any = read_object(home / "bundles" / build_id / "manifest.json", BundleRejected).get("metrics")
    metrics = metrics if isinstance(metrics, dict) else {}
    gaps: Any = metrics.get("gap_closed")
    intervals = {name: _interval(figure) for name, figure in gaps.items()} if isinstance(gaps, dict) else {}
    figures = {name: _interval(figure) for name, figure in metrics.items()}
    ceiling = _interval(metrics.get("replicate_ceiling"))
    return Build(
        build_id=build_id,
        built_at=at,
        promoted_at=promoted_at,
        gap_closed={name: figure for name, figure in intervals.items() if figure is not None},
        ceiling=ceiling.mean if ceiling else None,
        figures={name: figure.mean for name, figure in figures.items() if figure is not None},
    )


def _interval(figure: Any) -> Interval | None:
    """Return a figure that is a number, or an object with a mean; None if it is neither."""
    if isinstance(figure, int | float) and not isinstance(figure, bool):
        return Interval(float(figure))
    if isinstance(figure, dict) and isinstance(figure.get("mean"), int | float):
        low, high = figure.get("low"), figure.get("high")
        return Interval(float(figure["mean"]), low, high)
    return None


def _built_at(home: Path, build_id: str) -> datetime | None:
    """Return when a bundle was published: its directory never changes afterwards."""
    try:
        return datetime.fromtimestamp((home / "bundles" / build_id / "manifest.json").stat().st_mtime, UTC)
    except OSError:
        return None


def _promotions(home: Path) -> list[dict[str, Any]]:
    from gnn.bundle.promote import promotions

    return promotions(home)
