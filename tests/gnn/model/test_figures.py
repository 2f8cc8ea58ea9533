"""Figures against hand calculations, naive oracles and scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import brier_score_loss, f1_score, r2_score, roc_auc_score

from gnn.model import figures
from gnn.model.bootstrap import HostBootstrap
from gnn.model.calibration import calibrate, conformal_quantile, fit_temperature
from gnn.model.evaluation import Outcomes, compare
from gnn.model.predictions import Predictions
from gnn.model.targets import Labels, locate
from tests.gnn.model.store import problem

RANDOM = np.random.default_rng(0)


def test_gap_closed_by_hand() -> None:
    state = np.array([0, 0, 0, 1, 1, 2])
    reward = np.array([0.0, 0.3, 0.6, -0.2, 0.2, 9.0])
    assert figures.gap_closed(figures.state_gains(reward, reward, state)) == pytest.approx(1.0)
    gains = figures.state_gains(np.array([0, 1, 0, 1, 0, 0.0]), reward, state)
    assert gains.state.tolist() == [0, 1]
    assert gains.chosen.tolist() == [0.3, -0.2]
    assert figures.gap_closed(gains) == pytest.approx((0.3 - 0.3 + -0.2 - 0.0) / (0.6 - 0.3 + 0.2 - 0.0))


def test_equal_logits_are_a_random_draw() -> None:
    state, reward = np.array([0, 0, 1, 1]), np.array([0.0, 1.0, 2.0, 5.0])
    assert figures.gap_closed(figures.state_gains(np.zeros(4), reward, state)) == pytest.approx(0.0)


def test_a_missing_reward_is_left_out() -> None:
    gains = figures.state_gains(np.array([5.0, 1, 0]), np.array([np.nan, 1.0, 0.0]), np.zeros(3, dtype=int))
    assert (gains.chosen[0], gains.oracle[0], gains.random[0]) == (1.0, 1.0, 0.5)


@given(st.integers(0, 10_000))
def test_no_choice_is_better_than_the_oracle(seed: int) -> None:
    random = np.random.default_rng(seed)
    state, reward = random.integers(0, 4, 20), random.normal(size=20)
    gains = figures.state_gains(random.integers(0, 3, 20).astype(float), reward, state)
    assert (gains.chosen <= gains.oracle + 1e-12).all()
    assert figures.gap_closed(gains) <= 1 + 1e-12


def test_rank_correlation_is_scipys_within_each_state() -> None:
    state = np.repeat([0, 1, 2], 8)
    score, reward = RANDOM.normal(size=24), RANDOM.normal(size=24)
    expected = np.mean([spearmanr(score[state == s], reward[state == s])[0] for s in range(3)])
    assert figures.within_state_spearman(score, reward, state) == pytest.approx(expected)
    assert figures.within_state_spearman(np.zeros(24), reward, state) == 0.0


def test_scalars_agree_with_scikit_learn() -> None:
    u, value = RANDOM.normal(size=50), RANDOM.normal(size=50)
    assert figures.r2(value, u) == pytest.approx(r2_score(u, value))
    logits, classes = RANDOM.normal(size=(60, 5)), RANDOM.integers(0, 5, 60)
    assert figures.macro_f1(logits, classes) == pytest.approx(f1_score(classes, logits.argmax(1), average="macro"))
    score, positive = RANDOM.normal(size=40), RANDOM.random(40) > 0.5
    assert figures.auroc(score, positive) == pytest.approx(roc_auc_score(positive, score))
    p = RANDOM.random(30)
    binary = np.stack([1 - p, p], 1)
    truth = (RANDOM.random(30) > 0.5).astype(int)
    assert figures.brier(binary, truth) == pytest.approx(2 * brier_score_loss(truth, p))


def test_calibration_error_by_hand() -> None:
    shares = np.array([[0.9, 0.1]] * 10 + [[0.2, 0.8]] * 10)
    classes = np.array([0] * 9 + [1] + [1] * 4 + [0] * 6)
    assert figures.ece(shares, classes) == pytest.approx(0.5 * 0.0 + 0.5 * 0.4)
    rows = figures.reliability(shares, classes)
    assert sum(count for *_, count in rows) == 20
    assert len(rows) == 15


def test_what_can_not_be_computed_is_not_a_number() -> None:
    nothing, none = np.zeros(0), np.zeros(0, dtype=np.int64)
    found = [
        figures.gap_closed(figures.state_gains(nothing, nothing, none)), figures.r2(nothing, nothing),
        figures.interval_coverage(nothing, nothing, nothing), figures.macro_f1(np.zeros((0, 5)), none),
        figures.auroc(np.ones(3), np.ones(3, dtype=bool)), figures.ece(np.zeros((0, 5)), none),
        figures.brier(np.zeros((0, 5)), none), figures.within_state_spearman(nothing, nothing, none),
        figures.replicate_reliability(nothing, nothing),
    ]  # fmt: skip
    assert all(math.isnan(x) for x in found)


def test_reliability_of_two_replicates_follows_spearman_and_brown() -> None:
    first = RANDOM.normal(size=4000)
    second = 0.6 * first + 0.8 * RANDOM.normal(size=4000)
    r = np.corrcoef(first, second)[0, 1]
    assert figures.replicate_reliability(first, second) == pytest.approx(2 * r / (1 + r))


def test_a_bootstrap_keeps_hosts_whole_and_is_paired() -> None:
    hosts = np.repeat(["a", "b", "c", "d"], 5)
    boot = HostBootstrap(hosts, 300, seed=1)
    constant = np.repeat([1.0, 2.0, 3.0, 4.0], 5)
    mean, draws = boot.ratio(constant, np.ones(20))
    assert mean == 2.5
    assert set(np.round(draws * 4, 6)) <= set(range(4, 17))
    _, twice = boot.ratio(2 * constant, np.ones(20))
    assert np.allclose(twice, 2 * draws)
    found = boot.figure(lambda rows: float(constant[rows].mean()), draws=300)
    assert (found.mean, found.low <= 2.5 <= found.high) == (2.5, True)
    assert found.low == pytest.approx(np.quantile(draws, 0.025))


def test_the_temperature_of_overconfident_logits_is_found() -> None:
    truth = RANDOM.normal(size=(4000, 5))
    shares = figures.probabilities(truth)
    classes = np.array([RANDOM.choice(5, p=p) for p in shares])
    assert fit_temperature(truth * 3.0, classes) == pytest.approx(3.0, rel=0.1)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40), st.sampled_from([0.5, 0.8, 0.9]))
def test_the_conformal_quantile_covers_its_share(scores: list[float], level: float) -> None:
    found = conformal_quantile(np.array(scores), level)
    assert found in scores
    assert np.mean(np.array(scores) <= found) >= min(level, 1.0)


def test_few_labels_leave_calibration_at_its_defaults_and_say_so() -> None:
    labels, _ = locate(*problem(3))
    few = labels.take(np.arange(5))
    found = calibrate(Predictions(np.zeros(5), np.zeros(5), np.ones(5), np.zeros((5, 5))), few, 0.9)
    assert (found.temperature, round(found.scale, 3)) == (1.0, 1.645)
    assert set(found.missing) == {"temperature", "scale"}


def outcomes() -> tuple[Labels, Outcomes]:
    store, examples = problem(12)
    labels, _ = locate(store, examples)
    text = {name: np.array(examples[name].to_pylist())[labels.example] for name in ("host", "data_set", "architecture")}
    reward = examples["u_test"].to_numpy()[labels.example]
    return labels, Outcomes(labels, text["host"], reward, text["data_set"], text["architecture"])


def test_the_oracle_closes_the_gap_and_leads_every_baseline() -> None:
    labels, found = outcomes()
    oracle = Predictions(found.reward, found.reward)
    constant = Predictions(np.zeros(len(labels)), labels.kernel.astype(float))
    gaps = compare(found, {"model": oracle, "best_constant": constant}, 200, seed=0)
    assert gaps.closed["model"].mean == pytest.approx(1.0)
    assert gaps.closed["random"].mean == pytest.approx(0.0)
    assert gaps.best_baseline in ("best_constant", "no_op", "random")
    assert gaps.lead.low > 0
    assert gaps.lead.mean == pytest.approx(1.0 - gaps.closed[str(gaps.best_baseline)].mean)


def test_equal_models_have_no_lead_and_no_spread_of_it() -> None:
    _, found = outcomes()
    best = Predictions(found.reward, found.reward)
    gaps = compare(found, {"model": best, "ridge": best}, 200, seed=0)
    assert (gaps.lead.mean, gaps.lead.low, gaps.lead.high) == (0.0, 0.0, 0.0)
