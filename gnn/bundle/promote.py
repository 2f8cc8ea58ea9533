"""Promote and roll back bundles: `current` moves atomically, only to a bundle that passed, and every move is recorded."""

import getpass
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from gnn.bundle.challenge import kept
from gnn.bundle.gates import NAMES, Gate, GateConfig, gates
from gnn.bundle.preflight import PreflightReport, preflight
from gnn.bundle.read import Bundle, read_bundle, resolve_once
from gnn.bundle.write import BUNDLES, bundle_path
from lake.durable.journal import Journal
from lake.durable.publish import lock, switch_link
from schemas.errors import BundleRejected, PromotionRefused

CURRENT = "current"
PROMOTIONS = "promotions.ndjson"
LOCK = ".promotions.lock"
Action = Literal["promote", "rollback"]


@dataclass(frozen=True)
class PromotionReport:
    """The outcome of a promotion or rollback; `changed` is false if the bundle already served."""

    build_id: str
    previous: str | None
    gates: tuple[Gate, ...]
    waived: dict[str, str]
    changed: bool

    def to_object(self) -> dict[str, Any]:
        """Return the report as plain JSON values, for `--json`."""
        return asdict(self)


def serving(home: Path) -> str | None:
    """Return the build id that `current` names, or None if nothing serves yet."""
    link = home / CURRENT
    return resolve_once(link).name if link.is_symlink() else None


def promote(
    home: Path, build_id: str, waive: Mapping[str, str] | None = None, config: GateConfig | None = None
) -> PromotionReport:
    """Make the bundle of `build_id` the serving one.

    `waive` maps gates to the reason for waiving them; preflight and golden outputs can't be waived.
    The gate `champion` reads the stored `Challenge`.
    Raises PromotionRefused, which lists every mismatch and failed gate; the serving bundle then stays.
    """
    waived = _waivers(waive or {})
    with lock(home / LOCK):
        report = _preflight(home, build_id)
        judged = gates(_sound(report).manifest, config, kept(home, build_id, serving(home)))
        failed = [f"gate {g.name}: {g.detail}" for g in judged if not g.passed and g.name not in waived]
        if failed:
            raise PromotionRefused(
                f"bundle {build_id}: " + "; ".join(failed) + ". The serving bundle stays; see its metrics in manifest.json, "
                "or waive a gate with --waive GATE --reason TEXT."
            )
        used = {g.name: waived[g.name] for g in judged if not g.passed}
        return _move(home, build_id, "promote", judged, used)


def rollback(home: Path, build_id: str | None = None) -> PromotionReport:
    """Serve an older bundle again: `build_id`, or the one that served before the present one if it is None.

    The bundle must pass preflight, but no gate.
    """
    with lock(home / LOCK):
        target = build_id if build_id is not None else _before(home)
        _sound(_preflight(home, target, against_serving=False))
        return _move(home, target, "rollback", (), {})


def promotions(home: Path) -> list[dict[str, Any]]:
    """Return every recorded promotion and rollback, oldest first; damaged or incomplete lines are left out."""
    return Journal(home / PROMOTIONS).readable()


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _waivers(waive: Mapping[str, str]) -> dict[str, str]:
    unknown = sorted(set(waive) - set(NAMES))
    if unknown:
        raise PromotionRefused(f"waiver of {', '.join(unknown)}: expected one of {', '.join(NAMES)}")
    empty = sorted(name for name, reason in waive.items() if not reason.strip())
    if empty:
        raise PromotionRefused(f"waiver of {', '.join(empty)}: expected a reason, found none; add --reason TEXT")
    return dict(waive)


def _preflight(home: Path, build_id: str, *, against_serving: bool = True) -> PreflightReport:
    if Path(build_id).name != build_id or build_id in ("", ".", ".."):
        raise PromotionRefused(f"bundle {build_id!r}: expected a build id, found a path; see {home / BUNDLES}")
    path = bundle_path(home, build_id)
    if not path.is_dir():
        raise PromotionRefused(f"bundle {build_id}: expected a directory {path}, found none; see {home / BUNDLES}")
    now = serving(home)
    report = preflight(path, _readable(home, now) if against_serving and now not in (None, build_id) else None)
    if report.bundle is not None and report.bundle.build_id != build_id:
        raise PromotionRefused(f"bundle {build_id}: expected this build id, found {report.bundle.build_id} in its manifest")
    return report


def _readable(home: Path, build_id: str | None) -> Bundle | None:
    """Return the serving bundle, or None if it is damaged: a sound one may then replace it without comparison."""
    try:
        return read_bundle(bundle_path(home, str(build_id)))
    except BundleRejected:
        return None


def _sound(report: PreflightReport) -> Bundle:
    if report.bundle is None or not report.clean:
        listed = "; ".join(str(m) for m in report.mismatches)
        raise PromotionRefused(f"bundle {report.path.name}: preflight failed: {listed}. The serving bundle stays.")
    return report.bundle


def _before(home: Path) -> str:
    now = serving(home)
    older = [entry["build_id"] for entry in promotions(home) if entry["build_id"] != now]
    if not older:
        since = f"before {now}" if now is not None else "at any time"
        raise PromotionRefused(f"rollback: expected a bundle that served {since}, found none in {home / PROMOTIONS}")
    return str(older[-1])


def _move(home: Path, build_id: str, action: Action, judged: tuple[Gate, ...], waived: dict[str, str]) -> PromotionReport:
    previous = serving(home)
    if previous == build_id:
        return PromotionReport(build_id, previous, judged, waived, changed=False)
    entry = {
        "action": action,
        "at": datetime.now(UTC).isoformat(),
        "build_id": build_id,
        "by": _who(),
        "gates": {gate.name: {"detail": gate.detail, "passed": gate.passed} for gate in judged},
        "previous": previous,
        "waived": waived,
    }
    # written before the link moves, so that whatever serves is on record; `current` alone says what serves
    Journal(home / PROMOTIONS).append([entry])
    switch_link(home / CURRENT, f"{BUNDLES}/{build_id}")
    return PromotionReport(build_id, previous, judged, waived, changed=True)
