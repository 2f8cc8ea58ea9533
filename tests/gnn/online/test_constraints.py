"""The constraint table: each row is obeyed, gives its reason, and matters: without it the decision is another one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.online.choice import Answers, Choice, choose
from gnn.online.config import ServingConfig
from gnn.online.constraints import CONSTRAINTS, Constraint, Route, Scope, candidates
from gnn.online.facts import Facts
from gnn.online.snapshot import Sheet
from schemas.configuration import BLENDING_METHODS
from schemas.kernels import KERNELS

SOUND = Sheet(hazard_band="LOW", handling_class="STANDARD", resource_profile="CPU", risk=0.1, known=True)
SEEDS = ("seed-1", "seed-2")
K = len(KERNELS)
BEST = (1, 4)  # seed and kernel that the policy prefers
VALUES = np.full((2, K), 0.2)


def facts(**changes: Any) -> Facts:
    """Two seeds that may take any of six kernels; nothing stands against any of them."""
    known = Facts(
        seed_ids=SEEDS,
        mandatory_coverage=0.9,
        host=SOUND,
        kernels=(SOUND,) * K,
        kernel_quarantine_only=np.zeros(K, dtype=np.bool_),
        dormant=np.ones(2, dtype=np.bool_),
        measured=np.arange(K) < 6,
        at_site=np.ones((2, K), dtype=np.bool_),
        quarantine_only=np.zeros(2, dtype=np.bool_),
        risk_tolerance=np.full(2, np.nan),
        blending=(None, None),
        families=(None, None),
        measured_blending=frozenset(BLENDING_METHODS),
        measured_families=("sgd", "adam"),
        optimizer="adam",
        learning_rate=0.1,
        alpha=np.zeros(2),
        config=ServingConfig(),
        worth=VALUES,
        harm=VALUES,
    )
    return replace(known, **changes)


def answers(*, least: float = 0.0, harm: float = 0.1, method: str | None = "cosine") -> Answers:
    """The policy prefers BEST, then the same kernel at the other seed, then higher columns, then the second seed."""
    worth = 1.0 + np.arange(K) / 100.0 + np.array([[0.0], [0.001]])
    worth[:, BEST[1]] = 5.0
    worth[BEST] = 6.0
    risk = np.zeros((2, K, 5))
    risk[:, :, 0], risk[:, :, 3] = 1.0 - harm, harm
    logits = None if method is None else np.array([float(name == method) for name in BLENDING_METHODS])
    return Answers(np.full((2, K), 0.2), np.full((2, K), 0.05), risk, worth - least, logits)


def decided(known: Facts, said: Answers, constraints: Sequence[Constraint] = CONSTRAINTS) -> Choice:
    left, ruled = candidates(known, constraints)
    return Choice.ruled(ruled) if ruled is not None else choose(said, left, known, constraints)


def sheet_of(kernel: int, **fields: str) -> tuple[Sheet, ...]:
    return tuple(replace(SOUND, **fields) if place == kernel else SOUND for place in range(K))


def flags(*places: int, size: int) -> np.ndarray:
    return np.isin(np.arange(size), places)


ONLY = ServingConfig(max_harm=1.0)
Outcome = tuple[Route, str, str | None, str | None]

# row -> what there is, what the network says, and the decision
SCENES: dict[str, tuple[Facts, Answers, Outcome]] = {
    "degraded_inputs": (facts(mandatory_coverage=0.1), answers(), (Route.NO_OP, "degraded_inputs", None, None)),
    "no_seed_candidates": (
        facts(seed_ids=(), dormant=np.zeros(0, bool), at_site=np.zeros((0, K), bool), quarantine_only=np.zeros(0, bool),
              risk_tolerance=np.zeros(0), blending=(), families=(), alpha=np.zeros(0)),
        answers(), (Route.NO_OP, "no_seed_candidates", None, None),
    ),
    "bsds_missing": (facts(host=Sheet()), answers(), (Route.NO_OP, "bsds_missing", None, None)),
    "seed_not_dormant": (facts(dormant=flags(0, size=2)), answers(), (Route.GRAFT, "policy", "seed-1", KERNELS[4])),
    "kernel_not_measured": (facts(measured=flags(0, 2, size=K)), answers(), (Route.GRAFT, "policy", "seed-2", KERNELS[2])),
    "kernel_not_at_site": (
        facts(at_site=np.stack([flags(1, size=K), flags(3, size=K)])), answers(),
        (Route.GRAFT, "policy", "seed-2", KERNELS[3]),
    ),
    "kernel_quarantine_only": (
        facts(kernel_quarantine_only=flags(4, size=K)), answers(), (Route.GRAFT, "policy", "seed-2", KERNELS[5]),
    ),
    "blending_not_allowed": (
        facts(blending=(frozenset({"linear"}), frozenset())), answers(), (Route.GRAFT, "policy", "seed-1", KERNELS[4]),
    ),
    "blending_not_measured": (
        facts(measured_blending=frozenset(), blending=(frozenset({"linear"}), None)), answers(),
        (Route.GRAFT, "policy", "seed-1", KERNELS[4]),
    ),
    "quarantine_only": (
        facts(quarantine_only=flags(1, size=2)), answers(), (Route.PAUSE, "quarantine_only", "seed-2", KERNELS[4]),
    ),
    "bsds_hazard_critical": (
        facts(kernels=sheet_of(4, hazard_band="CRITICAL")), answers(),
        (Route.PAUSE, "bsds_hazard_critical", "seed-2", KERNELS[4]),
    ),
    "bsds_quarantine": (
        facts(kernels=sheet_of(4, handling_class="QUARANTINE")), answers(),
        (Route.PAUSE, "bsds_quarantine", "seed-2", KERNELS[4]),
    ),
    "risk_too_high": (
        facts(risk_tolerance=np.array([1.0, 0.05])), answers(), (Route.NO_OP, "risk_too_high", "seed-2", KERNELS[4]),
    ),
    "no_op_is_better": (facts(), answers(least=6.0), (Route.NO_OP, "no_op_is_better", "seed-2", KERNELS[4])),
    "bsds_hazard_high": (
        facts(kernels=sheet_of(4, hazard_band="HIGH")), answers(), (Route.ADJUST, "bsds_hazard_high", "seed-2", KERNELS[4]),
    ),
    "optimizer_not_allowed": (
        facts(kernels=sheet_of(4, hazard_band="HIGH"), families=(None, frozenset({"sgd"}))), answers(),
        (Route.PAUSE, "optimizer_not_allowed", "seed-2", KERNELS[4]),
    ),
}  # fmt: skip


def outcome(known: Facts, said: Answers, constraints: Sequence[Constraint] = CONSTRAINTS) -> Outcome:
    found = decided(known, said, constraints)
    return found.route, found.reason, None if found.seed is None else known.seed_ids[found.seed], found.kernel


def test_every_row_has_a_scene() -> None:
    assert list(SCENES) == [row.name for row in CONSTRAINTS]
    assert outcome(facts(), answers()) == (Route.GRAFT, "policy", "seed-2", KERNELS[4])


@pytest.mark.parametrize("row", CONSTRAINTS, ids=lambda row: row.name)
def test_a_row_is_obeyed_and_another_decision_is_made_without_it(row: Constraint) -> None:
    known, said, expected = SCENES[row.name]
    assert outcome(known, said) == expected
    without = [other for other in CONSTRAINTS if other is not row]
    try:
        changed = outcome(known, said, without)
    except ValueError:
        assert row.name == "no_seed_candidates"  # there is nothing to choose from at all
        return
    assert changed != expected


@pytest.mark.parametrize("row", [row for row in CONSTRAINTS if row.scope is Scope.CANDIDATE], ids=lambda row: row.name)
def test_a_candidates_row_that_leaves_nothing_says_so(row: Constraint) -> None:
    nothing: dict[str, Facts] = {
        "seed_not_dormant": facts(dormant=np.zeros(2, bool)),
        "kernel_not_measured": facts(measured=np.zeros(K, bool)),
        "kernel_not_at_site": facts(at_site=np.zeros((2, K), bool)),
        "kernel_quarantine_only": facts(kernel_quarantine_only=np.ones(K, bool)),
        "blending_not_allowed": facts(blending=(frozenset(), frozenset({"alpha"}))),
        "blending_not_measured": facts(measured_blending=frozenset()),
    }
    assert outcome(nothing[row.name], answers()) == (row.route, row.reason, None, None)


@pytest.mark.parametrize("host", [{"hazard_band": "CRITICAL"}, {"handling_class": "QUARANTINE"}, {"hazard_band": "HIGH"}])
def test_the_hosts_sheet_counts_as_a_kernels_does(host: dict[str, str]) -> None:
    of_kernel = outcome(facts(kernels=sheet_of(4, **host)), answers())
    assert outcome(facts(host=replace(SOUND, **host)), answers()) == of_kernel


@pytest.mark.parametrize(
    ("tolerance", "max_harm", "refused"), [(0.05, 1.0, True), (1.0, 0.05, True), (0.1, 0.1, False), (np.nan, 0.05, True)]
)
def test_the_lower_of_both_limits_counts(tolerance: float, max_harm: float, refused: bool) -> None:
    known = facts(risk_tolerance=np.full(2, tolerance), config=ServingConfig(max_harm=max_harm))
    assert (decided(known, answers(harm=0.1)).reason == "risk_too_high") == refused


@pytest.mark.parametrize("method", [*BLENDING_METHODS, None])
def test_a_seed_that_allows_one_method_gets_that_one(method: str | None) -> None:
    known = facts(blending=(frozenset({"warmup_hold"}),) * 2)
    assert decided(known, answers(method=method)).blending == "warmup_hold"
    free = decided(facts(), answers(method=method))
    assert free.blending == (method or "linear")


def test_an_adjustment_names_a_family_that_is_allowed() -> None:
    known = facts(optimizer=None, families=(frozenset({"rmsprop"}), None))
    assert known.optimizer_families == ("rmsprop", "sgd")
    assert facts().optimizer_families == ("adam", "adam")


words = st.none() | st.frozensets(st.sampled_from([*BLENDING_METHODS, "other"]))
masks: Callable[[int], st.SearchStrategy[np.ndarray]] = lambda size: st.lists(  # noqa: E731 - a strategy by size
    st.booleans(), min_size=size, max_size=size
).map(np.array)
sheets = st.builds(
    lambda band, handling: replace(SOUND, hazard_band=band, handling_class=handling),
    st.sampled_from(["LOW", "HIGH", "CRITICAL", "missing"]),
    st.sampled_from(["STANDARD", "QUARANTINE", "missing"]),
)


@settings(max_examples=200, deadline=None)
@given(
    dormant=masks(2), measured=masks(K), only=masks(2), blending=st.tuples(words, words), host=sheets,
    kernel=sheets, tolerance=st.tuples(st.floats(0, 1), st.floats(0, 1)), harm=st.floats(0, 1),
    method=st.sampled_from([*BLENDING_METHODS, None]), coverage=st.floats(0, 1),
)  # fmt: skip
def test_no_graft_ever_breaks_a_constraint(
    dormant: np.ndarray, measured: np.ndarray, only: np.ndarray, blending: tuple[Any, Any], host: Sheet, kernel: Sheet,
    tolerance: tuple[float, float], harm: float, method: str | None, coverage: float,
) -> None:  # fmt: skip
    known = facts(
        dormant=dormant, measured=measured, quarantine_only=only, blending=blending, host=host, kernels=(kernel,) * K,
        risk_tolerance=np.array(tolerance), mandatory_coverage=coverage, measured_blending=frozenset({"linear"}),
    )  # fmt: skip
    found = decided(known, answers(harm=harm, method=method))
    if found.route is not Route.GRAFT:
        assert found.reason in {row.reason for row in CONSTRAINTS}
        return
    assert found.seed is not None
    assert found.kernel is not None
    assert dormant[found.seed]
    assert measured[KERNELS.index(found.kernel)]
    assert not only[found.seed]
    assert found.blending in ({"linear"} if blending[found.seed] is None else blending[found.seed])
    assert {host.hazard_band, kernel.hazard_band} <= {"LOW", "missing"}
    assert "QUARANTINE" not in (host.handling_class, kernel.handling_class)
    assert harm <= min(tolerance[found.seed], 0.25)
    assert coverage > 0.1
