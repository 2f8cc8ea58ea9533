"""Declare every constraint on a decision in one table: what it checks, what happens then, its reason and priority.

`docs/serving.md` shows these rows, and a test removes each and expects another decision. The order counts: if several rows
apply, the first one decides. A hit is a boolean that broadcasts to [S, K, M]: seeds, kernels, blending methods.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from gnn.join.rows import Bools
from gnn.online.facts import Facts, Words
from gnn.online.snapshot import Sheet
from schemas.configuration import BLENDING_METHODS

Priority = str
LOW: Final = "LOW"
NORMAL: Final = "NORMAL"
HIGH: Final = "HIGH"
CRITICAL: Final = "CRITICAL"
URGENT: Final = frozenset({HIGH, CRITICAL})  # published on oona.emergency


class Route(StrEnum):
    """What is done: `graft` the chosen kernel, `adjust` the optimizer instead, `pause` training, or nothing (`no_op`)."""

    GRAFT = "graft"
    ADJUST = "adjust"
    PAUSE = "pause"
    NO_OP = "no_op"


class Scope(StrEnum):
    """What a row applies to: the `graph`, each `candidate` (which it removes), the `chosen` one, or an `adjustment`."""

    GRAPH = "graph"
    CANDIDATE = "candidate"
    CHOSEN = "chosen"
    ADJUSTMENT = "adjustment"


@dataclass(frozen=True)
class Constraint:
    """One row of the table. `route` is what is done if it applies; for scope `candidate`, if no candidate is left."""

    name: str
    reason: str
    priority: Priority
    scope: Scope
    route: Route
    applies: Callable[[Facts], Bools]
    meaning: str


def _of_graph(hit: bool) -> Bools:
    return np.array(hit).reshape(1, 1, 1)


def _of_seeds(hits: Bools) -> Bools:
    return np.asarray(hits, dtype=np.bool_).reshape(-1, 1, 1)


def _of_kernels(hits: Sequence[bool] | Bools) -> Bools:
    return np.asarray(hits, dtype=np.bool_).reshape(1, -1, 1)


def _of_sheets(facts: Facts, hit: Callable[[Sheet], bool]) -> Bools:
    """Mark the candidates for which `hit` is true of the host's sheet or the kernel's."""
    return _of_graph(hit(facts.host)) | _of_kernels([hit(sheet) for sheet in facts.kernels])


def _methods(facts: Facts, *, known: bool) -> Bools:
    """Mark the methods that a seed may not use, for seeds whose capabilities are `known`, or for those whose are not.

    Known capabilities name the allowed methods; for other seeds the bundle does.
    """
    rows = np.zeros((len(facts.blending), 1, len(BLENDING_METHODS)), dtype=np.bool_)
    for seed, words in enumerate(facts.blending):
        if (words is not None) == known:
            allowed = facts.measured_blending if words is None else words
            rows[seed, 0] = [method not in allowed for method in BLENDING_METHODS]
    return rows


def _harmful(facts: Facts) -> Bools:
    limit = np.fmin(facts.risk_tolerance, facts.config.max_harm)
    return (facts.harm > limit[:, None])[:, :, None]


def _family_refused(facts: Facts) -> Bools:
    def refused(family: str, allowed: Words) -> bool:
        return family not in (facts.measured_families if allowed is None else allowed)

    pairs = zip(facts.optimizer_families, facts.families, strict=True)
    return _of_seeds(np.array([refused(family, allowed) for family, allowed in pairs], dtype=np.bool_))


def _row(
    name: str, priority: Priority, scope: Scope, route: Route, applies: Callable[[Facts], Bools], meaning: str
) -> Constraint:
    return Constraint(name, name, priority, scope, route, applies, meaning)


CONSTRAINTS: Final[tuple[Constraint, ...]] = (
    _row(
        "degraded_inputs", CRITICAL, Scope.GRAPH, Route.NO_OP,
        lambda f: _of_graph(f.mandatory_coverage <= f.config.critical_coverage),
        "the mean over the graph's mandatory coverage keys is at or under `critical_coverage`",
    ),
    _row(
        "no_seed_candidates", NORMAL, Scope.GRAPH, Route.NO_OP,
        lambda f: _of_graph(not f.seed_ids), "the graph has no seeds",
    ),
    _row(
        "bsds_missing", HIGH, Scope.GRAPH, Route.NO_OP,
        lambda f: _of_graph(not f.host.known), "the host's blueprint has no safety sheet",
    ),
    _row(
        "seed_not_dormant", NORMAL, Scope.CANDIDATE, Route.NO_OP,
        lambda f: _of_seeds(~f.dormant), "the seed is not DORMANT: it holds a graft already, or is under embargo",
    ),
    _row(
        "kernel_not_measured", NORMAL, Scope.CANDIDATE, Route.NO_OP,
        lambda f: _of_kernels(~f.measured), "no training host measured the kernel",
    ),
    _row(
        "kernel_not_at_site", NORMAL, Scope.CANDIDATE, Route.NO_OP,
        lambda f: (~f.at_site)[:, :, None], "the kernel was not measured at a site like the seed's, or the seed monitors none",
    ),
    _row(
        "kernel_quarantine_only", HIGH, Scope.CANDIDATE, Route.PAUSE,
        lambda f: _of_kernels(f.kernel_quarantine_only), "Urza's descriptor of the kernel says quarantine_only",
    ),
    _row(
        "blending_not_allowed", NORMAL, Scope.CANDIDATE, Route.NO_OP,
        lambda f: _methods(f, known=True), "the seed's capabilities do not name the blending method",
    ),
    _row(
        "blending_not_measured", NORMAL, Scope.CANDIDATE, Route.NO_OP,
        lambda f: _methods(f, known=False), "the seed's capabilities are unknown, and the bundle did not measure the method",
    ),
    _row(
        "quarantine_only", HIGH, Scope.CHOSEN, Route.PAUSE,
        lambda f: _of_seeds(f.quarantine_only), "the seed takes only quarantined grafts",
    ),
    _row(
        "bsds_hazard_critical", CRITICAL, Scope.CHOSEN, Route.PAUSE,
        lambda f: _of_sheets(f, lambda sheet: sheet.hazard_band == "CRITICAL"),
        "the sheet of the host or of the kernel has hazard band CRITICAL",
    ),
    _row(
        "bsds_quarantine", HIGH, Scope.CHOSEN, Route.PAUSE,
        lambda f: _of_sheets(f, lambda sheet: sheet.handling_class == "QUARANTINE"),
        "the sheet of the host or of the kernel has handling class QUARANTINE",
    ),
    _row(
        "risk_too_high", NORMAL, Scope.CHOSEN, Route.NO_OP,
        _harmful, "calibrated P(high) + P(critical) is above the seed's `risk_tolerance` or `max_harm`, the lower of both",
    ),
    _row(
        "no_op_is_better", NORMAL, Scope.CHOSEN, Route.NO_OP,
        lambda f: ~(f.worth > f.config.min_value)[:, :, None],
        "the utility (uplift and preference, less the price of expected harm) is not above `min_value`",
    ),
    _row(
        "bsds_hazard_high", HIGH, Scope.CHOSEN, Route.ADJUST,
        lambda f: _of_sheets(f, lambda sheet: sheet.hazard_band == "HIGH"),
        "the sheet of the host or of the kernel has hazard band HIGH: the learning rate is lowered instead",
    ),
    _row(
        "optimizer_not_allowed", HIGH, Scope.ADJUSTMENT, Route.PAUSE,
        _family_refused, "the seed's capabilities (unknown: the bundle) do not name the optimizer family to adjust",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Ruling:
    """The outcome of all rows: `row` is the one that decided, None for the policy's own choice."""

    route: Route
    row: Constraint | None = None

    @property
    def reason(self) -> str:
        """The reason that a command carries."""
        return "policy" if self.row is None else self.row.reason

    @property
    def priority(self) -> Priority:
        """The priority that a command carries."""
        return NORMAL if self.row is None else self.row.priority


def candidates(facts: Facts, constraints: Sequence[Constraint] = CONSTRAINTS) -> tuple[Bools, Ruling | None]:
    """Return the candidates that are left, bool [S, K, M], and a ruling if a row of the graph applies or none is left."""
    for row in constraints:
        if row.scope is Scope.GRAPH and bool(row.applies(facts).any()):
            return np.zeros(facts.shape, dtype=np.bool_), Ruling(row.route, row)
    left = np.ones(facts.shape, dtype=np.bool_)
    for row in constraints:
        if row.scope is Scope.CANDIDATE:
            left &= ~row.applies(facts)
            if not left.any():
                return left, Ruling(row.route, row)
    return left, None


def ruling(facts: Facts, seed: int, kernel: int, method: int, constraints: Sequence[Constraint] = CONSTRAINTS) -> Ruling:
    """Return the ruling on the chosen seed, kernel and method."""

    def first(scope: Scope) -> Constraint | None:
        rows = (row for row in constraints if row.scope is scope)
        return next((row for row in rows if np.broadcast_to(row.applies(facts), facts.shape)[seed, kernel, method]), None)

    spoke = first(Scope.CHOSEN)
    if spoke is None:
        return Ruling(Route.GRAFT)
    refused = first(Scope.ADJUSTMENT) if spoke.route is Route.ADJUST else None
    return Ruling(spoke.route, spoke) if refused is None else Ruling(refused.route, refused)
