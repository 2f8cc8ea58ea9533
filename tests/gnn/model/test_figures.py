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
from gnn.model.calibration import (
    Answers,
    calibrate,
    calibrated,
    conformal_quantile,
    cross_calibrated,
    fit_temperature,
)
from gnn.model.choices import (
    LEAST_ROOM,
    REWARD_CLIP,
    choices,
    gap_closed,
    rank_correlations,
    replicate_ceiling,
)
from gnn.model.evaluation import evaluate, gaps, outcomes_of
from gnn.model.predictions import Predictions
from gnn.model.targets import locate
from tests.gnn.model.store import problem

RANDOM = np.random.default_rng(0)


def naive_gap(score, reward, state):
    """The definition of `model.md`, state by state: the share closed of all room, and its mean over states with room."""
    gain = room = 0.0
    shares = []
    for name in set(state.tolist()):
        rows = [i for i in range(len(state)) if state[i] == name and math.isfinite(reward[i])]
        if len(rows) < 2:
            continue
        top = max(score[i] for i in rows)
        taken = [reward[i] for i in rows if score[i] == top]
        mean = sum(reward[i] for i in rows) / len(rows)
        mine, whole = sum(taken) / len(taken) - mean, max(reward[i] for i in rows) - mean
        gain, room = gain + mine, room + whole
        if whole > LEAST_ROOM:
            shares.append(max(-1.0, mine / whole))
    return gain / room if room else math.nan, sum(shares) / len(shares) if shares else math.nan


def drawn(seed: int, rows: int = 60):
    random = np.random.default_rng(seed)
    reward = random.normal(0, 0.1, rows)
    reward[random.random(rows) < 0.1] = np.nan
    return random.integers(0, 4, rows).astype(float), reward, random.integers(0, 12, rows)


@given(st.integers(0, 10_000))
def test_gap_closed_is_the_naive_one(seed: int) -> None:
    score, reward, state = drawn(seed)
    found = choices(score, reward, state)
    whole, by_state = naive_gap(score, reward, state)
    assert gap_closed(found) == pytest.approx(whole, nan_ok=True)
    share, wide = found.shares
    assert share.sum() / wide.sum() == pytest.approx(by_state)


@given(st.integers(0, 10_000), st.floats(-5, 5), st.floats(0.1, 9))
def test_the_oracle_closes_all_a_constant_nothing_and_a_shift_of_scores_changes_nothing(
    seed: int, shift: float, scale: float
) -> None:
    score, reward, state = drawn(seed)
    assert gap_closed(choices(reward, reward, state)) == pytest.approx(1.0)
    assert gap_closed(choices(np.zeros(len(state)), reward, state)) == pytest.approx(0.0, abs=1e-12)
    by_state = RANDOM.normal(size=12)[state]
    moved = choices(np.round(score * 8) * scale + np.round(by_state) * 16 + round(shift) * 16, reward, state)
    same = choices(np.round(score * 8) * scale, reward, state)
    assert gap_closed(moved) == pytest.approx(gap_closed(same))
    assert (same.chosen <= same.best + 1e-12).all()


def test_a_policy_that_grafts_nothing_gains_nothing_and_harms_nobody() -> None:
    reward, state = np.array([-0.2, 0.1, -0.1, 0.2]), np.array([0, 0, 1, 1])
    harmful = reward < 0
    score = np.array([1.0, 0.0, 0.0, 1.0])
    some = choices(score, reward, state, grafts=np.array([False, True, True, True]), harmful=harmful)
    assert some.done.tolist() == [0.0, 0.2]
    assert some.acts.tolist() == [0.0, 1.0]
    assert some.harm.tolist() == [0.0, 0.0]
    every = choices(score, reward, state, harmful=harmful)
    assert every.done.tolist() == [-0.2, 0.2]
    assert every.harm.tolist() == [1.0, 0.0]


def test_a_missing_reward_is_left_out_and_a_single_pair_is_no_choice() -> None:
    found = choices(np.array([5.0, 1, 0, 3]), np.array([np.nan, 1.0, 0.0, 9.0]), np.array([0, 0, 0, 1]))
    assert (found.chosen.tolist(), found.best.tolist(), found.random.tolist(), found.row.tolist()) == ([1.0], [1.0], [0.5], [1])


def test_the_ceiling_is_what_one_replicate_says_of_the_other() -> None:
    state = np.repeat(np.arange(400), 6)
    truth = RANDOM.normal(0, 0.05, 2400)

    def ceiling(noise: float) -> float:
        u = tuple(truth + RANDOM.normal(0, noise, 2400) for _ in range(2))
        return replicate_ceiling(u, u, state)

    assert ceiling(0.0) == pytest.approx(1.0)
    assert ceiling(0.0) > ceiling(0.05) > ceiling(0.2) > 0.0
    assert abs(replicate_ceiling(tuple(RANDOM.normal(size=(2, 2400))), tuple(RANDOM.normal(size=(2, 2400))), state)) < 0.1
    one = (truth, np.full(2400, np.nan))
    assert math.isnan(replicate_ceiling(one, one, state))


def test_the_ceiling_is_judged_by_the_clipped_reward_on_test_data() -> None:
    state, u = np.zeros(2, dtype=int), (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    test = (np.array([0.0, 9.0]), np.array([5.0, 0.0]))
    assert replicate_ceiling(u, test, state) == pytest.approx((0.125 - 0.125) / (2 * 0.125))
    assert REWARD_CLIP == 0.25


def test_rank_correlation_is_scipys_within_each_state() -> None:
    state = np.repeat([0, 1, 2], 8)
    score, reward = RANDOM.integers(0, 4, 24).astype(float), RANDOM.normal(size=24)
    expected = [spearmanr(score[state == s], reward[state == s])[0] for s in range(3)]
    rows, found = rank_correlations(score, reward, state)
    assert found == pytest.approx(expected)
    assert state[rows].tolist() == [0, 1, 2]
    assert rank_correlations(np.zeros(24), reward, state)[1].tolist() == [0.0] * 3
    assert len(rank_correlations(score[:2], reward[:2], state[:2])[1]) == 0


def test_scalars_agree_with_scikit_learn() -> None:
    u, value = RANDOM.normal(size=50), RANDOM.normal(size=50)
    assert figures.r2_of(figures.r2_sums(value, u).sum(0)) == pytest.approx(r2_score(u, value))
    guess, classes = RANDOM.integers(0, 5, 60), RANDOM.integers(0, 4, 60)
    expected = f1_score(classes, guess, average="macro", labels=np.unique(classes))
    assert figures.macro_f1_of(figures.f1_sums(guess, classes, 5).sum(0)) == pytest.approx(expected)
    score, positive = RANDOM.integers(0, 9, 40).astype(float), RANDOM.random(40) > 0.5
    assert figures.auroc(score, positive) == pytest.approx(roc_auc_score(positive, score))
    weights = RANDOM.integers(0, 3, (2, 40)).astype(float)
    each = [roc_auc_score(positive, score, sample_weight=row) for row in weights]
    assert figures.auroc(score, positive, weights) == pytest.approx(each)
    p = RANDOM.random(30)
    truth = (RANDOM.random(30) > 0.5).astype(int)
    assert figures.brier(np.stack([1 - p, p], 1), truth).mean() == pytest.approx(2 * brier_score_loss(truth, p))


def test_calibration_error_by_hand() -> None:
    shares = np.array([[0.9, 0.1]] * 10 + [[0.2, 0.8]] * 10)
    classes = np.array([0] * 9 + [1] + [1] * 4 + [0] * 6)
    assert figures.ece_of(figures.ece_sums(shares, classes).sum(0)) == pytest.approx(0.5 * 0.0 + 0.5 * 0.4)
    rows = figures.reliability(shares, classes)
    assert sum(count for *_, count in rows) == 20
    assert len(rows) == 15


def test_what_can_not_be_computed_is_not_a_number() -> None:
    nothing, none = np.zeros(0), np.zeros(0, dtype=np.int64)
    found = [
        gap_closed(choices(nothing, nothing, none)), figures.r2_of(figures.r2_sums(nothing, nothing).sum(0)),
        figures.macro_f1_of(figures.f1_sums(none, none, 5).sum(0)), figures.auroc(np.ones(3), np.ones(3, dtype=bool)),
        figures.auroc(nothing, none.astype(bool)), figures.ece_of(figures.ece_sums(np.zeros((0, 5)), none).sum(0)),
        figures.replicate_reliability(nothing, nothing), replicate_ceiling((nothing,) * 2, (nothing,) * 2, none),
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
    place, constant = boot.places(hosts), np.repeat([1.0, 2.0, 3.0, 4.0], 5)
    found = boot.ratio(constant, np.ones(20), place)
    assert found.mean == 2.5
    assert set(np.round(found.draws * 4, 6)) <= set(range(4, 17))
    twice = boot.ratio(2 * constant, np.ones(20), place)
    assert np.allclose(twice.draws, 2 * found.draws)
    assert (twice - found).draws == pytest.approx(found.draws)
    assert found.interval.low == pytest.approx(np.quantile(found.draws, 0.025))
    assert found.interval.low <= 2.5 <= found.interval.high


def test_a_resample_is_the_figure_of_the_rows_that_it_drew() -> None:
    hosts = RANDOM.choice(["a", "b", "c"], 30)
    boot = HostBootstrap(hosts, 8, seed=3)
    place, u, value = boot.places(hosts), RANDOM.normal(size=30), RANDOM.normal(size=30)
    found = boot.of_sums(figures.r2_sums(value, u), place, figures.r2_of)
    (weights,) = boot.weights(place, 8)
    for draw, row in zip(found.draws, weights, strict=True):
        again = np.repeat(np.arange(30), row.astype(int))
        assert draw == pytest.approx(r2_score(u[again], value[again]))


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


def test_a_fold_is_calibrated_by_the_others_alone() -> None:
    labels, _ = locate(*problem(12))
    fold = labels.graph % 3
    said = Predictions(np.zeros(len(labels)), np.zeros(len(labels)), np.full(len(labels), 0.1), np.zeros((len(labels), 5)))
    found = cross_calibrated(said, labels, fold, 0.9)
    others = np.flatnonzero(fold != 1)
    alone = calibrated(said, calibrate(said.take(others), labels.take(others), 0.9))
    assert np.allclose(found.high[fold == 1], alone.high[fold == 1])
    assert np.allclose(found.score[fold == 1], alone.score[fold == 1])
    assert len(np.unique(found.high)) > 1


def test_the_oracle_closes_the_gap_and_leads_every_baseline() -> None:
    store, examples = problem(12)
    labels, _ = locate(store, examples)
    found = outcomes_of(examples, labels)
    nan = np.full(len(labels), np.nan)
    every = np.ones(len(labels), dtype=bool)
    oracle = Answers(found.reward, every, found.reward, found.reward, nan, nan)
    constant = Answers(labels.kernel.astype(float), every, nan, np.zeros(len(labels)), nan, nan)
    boot = HostBootstrap(found.hosts, 200, seed=0)
    judged = evaluate(found, {"model": oracle, "best_constant": constant}, boot)
    assert judged["model"]["gap_closed"].mean == pytest.approx(1.0)
    assert judged["model"]["gap_closed_by_state"].mean == pytest.approx(1.0)
    assert judged["random"]["gap_closed"].mean == pytest.approx(0.0, abs=1e-12)
    assert judged["no_op"]["benefit"].mean == 0.0
    assert judged["random"]["harm_rate"].mean == pytest.approx(found.harmful.mean(), abs=0.02)
    led = gaps(judged)
    assert led.best_baseline in ("best_constant", "no_op", "random")
    assert led.lead is not None and led.lead.interval.low > 0
    assert led.lead.mean == pytest.approx(1.0 - judged[led.best_baseline]["gap_closed"].mean)
    assert gaps(evaluate(found, {"model": oracle, "ridge": oracle}, boot)).lead.draws.tolist() == [0.0] * 200


def test_rewards_are_clipped_and_a_diverged_graft_is_the_worst_of_them() -> None:
    store, examples = problem(3)
    labels, _ = locate(store, examples)
    rows = [row | {"u_test": 7.0} for row in examples.to_pylist()]
    rows[0] |= {"u": None, "u_test": None, "risk_class": "critical"}
    rows[1]["u_test"] = None
    reward = outcomes_of(examples.from_pylist(rows, schema=examples.schema), labels).reward
    placed = dict(zip(labels.example.tolist(), reward.tolist(), strict=True))
    assert placed[0] == -REWARD_CLIP
    assert math.isnan(placed[1])
    assert placed[2] == REWARD_CLIP
    without = examples.from_pylist([row | {"u_test": None} for row in rows], schema=examples.schema)
    again = dict(zip(labels.example.tolist(), outcomes_of(without, labels).reward.tolist(), strict=True))
    assert again[1] == pytest.approx(np.clip(rows[1]["u"], -REWARD_CLIP, REWARD_CLIP))
