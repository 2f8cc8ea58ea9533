"""Gates at their thresholds, to the digit: which side passes, which figure is asked for, and the sentence that people read."""

from typing import Any

import pytest

from gnn.bundle import GateConfig, gates
from gnn.bundle.challenge import Challenge
from gnn.bundle.gates import NAMES, Gate
from gnn.bundle.manifest import Manifest
from gnn.bundle.members import MANIFEST
from schemas.configuration import REQUIRED_HEADS
from tests.gnn.bundle.conftest import Home

SPAN = {"mean": 0.25, "low": 0.125, "high": 0.5}
GOOD: dict[str, Any] = {
    "benefit": SPAN,
    "gap_closed": {"model": SPAN},
    "gap_closed_minus_best_baseline": {"mean": -0.015, "low": -0.1, "high": 0.2},
    "harm_rate": {"chosen": 0.021, "random": 0.043},
    "risk_ece_after": 0.031,
    "value_interval_coverage": 0.912,
}
ABOVE, BELOW = 1e-9, -1e-9


@pytest.fixture(scope="module")
def manifest(published: Home) -> Manifest:
    """A manifest with figures that pass every gate."""
    path = published.path / "bundles" / published.inputs().build_id / MANIFEST
    found = Manifest.model_validate_json(path.read_bytes())
    return found.model_copy(update={"metrics": GOOD, "metrics_missing": {}})


def gate(manifest: Manifest, name: str, challenge: Challenge | None = None, **metrics: Any) -> Gate:
    changed = manifest.model_copy(update={"metrics": GOOD | metrics})
    (found,) = [found for found in gates(changed, None, challenge) if found.name == name]
    return found


def test_gates_stand_in_their_order_and_say_what_they_measured(manifest: Manifest) -> None:
    against = Challenge("a" * 64, 50, {"mean": -0.125, "low": -0.25, "high": 0.5})
    assert gates(manifest, None, against) == (
        Gate("required_heads", True, "all required heads trained"),
        Gate("benefit", True, "mean reward of what the policy does 0.250 [0.125, 0.500], lower end must be above 0.0"),
        Gate(
            "choice", True, "gap closed 0.250 [0.125, 0.500], lower end must be above 0.0; "
            "lead over the best baseline -0.015 [-0.100, 0.200], at least -0.03",
        ),
        Gate(
            "champion", True, "gap closed minus that of aaaaaaaaaaaaaaaa on 50 hosts that neither trained on "
            "-0.125 [-0.250, 0.500], upper end must not be below 0",
        ),
        Gate("harm", True, "harmful outcomes among the chosen 0.021, among random ones 0.043"),
        Gate("risk_calibration", True, "calibration error 0.031, at most 0.05"),
        Gate("value_coverage", True, "coverage 0.912 of the 90 % interval, 0.85 to 0.95"),
    )  # fmt: skip
    assert tuple(found.name for found in gates(manifest)) == NAMES


@pytest.mark.parametrize(
    ("name", "passes", "fails"),
    [
        ("benefit", {"benefit": SPAN | {"low": ABOVE}}, {"benefit": SPAN | {"low": 0.0}}),
        ("choice", {"gap_closed": {"model": SPAN | {"low": ABOVE}}}, {"gap_closed": {"model": SPAN | {"low": 0.0}}}),
        (
            "choice",
            {"gap_closed_minus_best_baseline": SPAN | {"mean": -0.03}},
            {"gap_closed_minus_best_baseline": SPAN | {"mean": -0.03 + BELOW}},
        ),
        ("harm", {"harm_rate": {"chosen": 0.1, "random": 0.1}}, {"harm_rate": {"chosen": 0.1 + ABOVE, "random": 0.1}}),
        ("risk_calibration", {"risk_ece_after": 0.05}, {"risk_ece_after": 0.05 + ABOVE}),
        ("value_coverage", {"value_interval_coverage": 0.85}, {"value_interval_coverage": 0.85 + BELOW}),
        ("value_coverage", {"value_interval_coverage": 0.95}, {"value_interval_coverage": 0.95 + ABOVE}),
    ],
)
def test_a_gate_turns_at_its_threshold(manifest: Manifest, name: str, passes: Any, fails: Any) -> None:
    assert gate(manifest, name, **passes).passed is True
    assert gate(manifest, name, **fails).passed is False


def test_the_champion_must_not_be_beaten_for_certain(manifest: Manifest) -> None:
    span = {"mean": -0.1, "low": -0.2, "high": 0.0}
    assert gate(manifest, "champion", Challenge("a" * 64, 50, span)).passed
    assert not gate(manifest, "champion", Challenge("a" * 64, 50, span | {"high": BELOW})).passed
    refused = gate(manifest, "champion", Challenge("a" * 64, 50, None, "too few states"))
    assert (refused.passed, refused.detail) == (False, "not compared with aaaaaaaaaaaaaaaa: too few states")
    early = gate(manifest, "champion", Challenge("a" * 64, 0, None, "no measured host"))
    assert (early.passed, early.detail) == (True, "skipped: no measured host")


@pytest.mark.parametrize(
    ("name", "asked", "metrics"),
    [
        ("benefit", "benefit", {"benefit": None}),
        ("choice", "gap_closed.model", {"gap_closed": None}),
        ("choice", "gap_closed.model", {"gap_closed": {"model": None}}),
        ("choice", "gap_closed_minus_best_baseline", {"gap_closed_minus_best_baseline": None}),
        ("harm", "harm_rate.chosen", {"harm_rate": {"chosen": None, "random": 0.1}}),
        ("harm", "harm_rate.random", {"harm_rate": {"chosen": 0.1, "random": None}}),
        ("risk_calibration", "risk_ece_after", {"risk_ece_after": None}),
        ("value_coverage", "value_interval_coverage", {"value_interval_coverage": None}),
    ],
)
def test_a_gate_without_its_figure_fails_and_says_why(
    manifest: Manifest, name: str, asked: str, metrics: dict[str, Any]
) -> None:
    assert gate(manifest, name, **metrics) == Gate(name, False, f"{asked} not computed: no reason given")
    explained = manifest.model_copy(update={"metrics_missing": {asked: "too few hosts", "other": "another"}})
    assert gate(explained, name, **metrics) == Gate(name, False, f"{asked} not computed: too few hosts")


def test_untrained_heads_are_named_with_their_reasons(manifest: Manifest) -> None:
    first, second = REQUIRED_HEADS[:2]
    heads, lost = manifest.heads, {"trained": False}
    lacking = {name: heads[name].model_copy(update=lost | {"reason": f"no {name}"}) for name in (first, second)}
    changed = manifest.model_copy(update={"heads": {**heads, **lacking}})
    assert gates(changed)[0] == Gate("required_heads", False, f"untrained: {first} (no {first}), {second} (no {second})")


@pytest.mark.parametrize(
    ("name", "limits", "passed"),
    [
        ("benefit", {"benefit_above": 0.125}, False),
        ("choice", {"gap_closed_above": 0.125}, False),
        ("choice", {"lead_at_least": -0.0149}, False),
        ("champion", {"champion_hosts": 51}, True),
        ("champion", {"champion_hosts": 50}, False),
        ("harm", {"harm_above_random": -0.023}, False),
        ("harm", {"harm_above_random": -0.0219}, True),
        ("risk_calibration", {"risk_ece_at_most": 0.03}, False),
        ("value_coverage", {"coverage_from": 0.92}, False),
        ("value_coverage", {"coverage_to": 0.91}, False),
    ],
)
def test_a_threshold_moves_its_own_gate_alone(manifest: Manifest, name: str, limits: dict[str, Any], passed: bool) -> None:
    beaten = Challenge("a" * 64, 50, {"mean": -0.2, "low": -0.3, "high": -0.1})
    found = {found.name: found.passed for found in gates(manifest, GateConfig(**limits), beaten)}
    expected = dict.fromkeys(NAMES, True) | {"champion": False} | {name: passed}
    assert found == expected


def test_thresholds_are_those_of_the_design() -> None:
    assert GateConfig().model_dump() == {
        "benefit_above": 0.0, "gap_closed_above": 0.0, "lead_at_least": -0.03, "champion_hosts": 50, "harm_above_random": 0.0,
        "risk_ece_at_most": 0.05, "coverage_from": 0.85, "coverage_to": 0.95,
    }  # fmt: skip
