"""Baselines learn what there is to learn, from training rows alone."""

import numpy as np
import pytest

from gnn.model.baselines import Rows, fit_baselines
from gnn.model.choices import REWARD_CLIP, choices, gap_closed
from gnn.model.targets import Labels
from schemas.configuration import NUM_KERNELS, TrainingConfig

CONFIG = TrainingConfig(boosting_rounds=60)
STATES, PAIRS, WIDTH = 400, 6, 8


def rows(seed: int = 0) -> tuple[Rows, np.ndarray]:
    """One state a host; what a kernel is worth depends on the site, on the kernel, and on the host's group."""
    random = np.random.default_rng(seed)
    fixed = np.random.default_rng(99)
    slopes, offsets = fixed.normal(0, 0.05, (NUM_KERNELS, 3)), fixed.normal(0, 0.03, NUM_KERNELS)
    by_group = fixed.normal(0, 0.06, (4, NUM_KERNELS))
    state = np.repeat(np.arange(STATES), PAIRS)
    kernel = np.concatenate([random.choice(NUM_KERNELS, PAIRS, replace=False) for _ in range(STATES)])
    group = random.integers(0, 4, STATES)[state]
    sites = np.concatenate([random.normal(size=(STATES, WIDTH))[state], np.eye(4)[group], np.ones((len(state), 1))], 1)
    truth = (slopes[kernel] * sites[:, :3]).sum(1) + offsets[kernel] + by_group[group, kernel]
    u = truth + random.normal(0, 0.02, len(state))
    labels = Labels(
        example=np.arange(len(state)),
        graph=state,
        seed=np.zeros(len(state), dtype=np.int64),
        kernel=kernel,
        uplift=u,
        weight=np.ones(len(state)),
        risk=np.where(u < -0.1, 3, 0),
        methods=np.full((len(state), 4), np.nan),
    )
    names = {"architecture": np.array(["cnn", "mlp"])[group % 2], "data_set": np.array(["digits", "rooms"])[group // 2]}
    return Rows(labels, sites, np.array([f"host-{n}" for n in state]), **names), truth


def test_each_baseline_closes_what_it_can_see_of_the_gap() -> None:
    train, _ = rows(1)
    judged, truth = rows(2)
    fitted = fit_baselines(train, CONFIG)
    closed = {
        name: gap_closed(choices(baseline(judged).logit, truth, judged.labels.graph)) for name, baseline in fitted.items()
    }
    assert set(closed) == {"best_constant", "best_grouped", "ridge", "boosting", "gaussian_process"}
    assert 0.1 < closed["best_constant"] < closed["best_grouped"] - 0.1
    for name in ("ridge", "boosting", "gaussian_process"):
        assert closed[name] > closed["best_grouped"], closed


def test_a_group_that_was_never_seen_takes_the_architectures_mean_and_else_the_kernels() -> None:
    train, _ = rows(1)
    fitted = fit_baselines(train, CONFIG.model_copy(update={"boosting": False, "gaussian_process": False}))
    judged, _ = rows(2)
    count = len(judged.labels)
    strange = Rows(judged.labels, judged.sites, judged.hosts, np.full(count, "rnn"), np.full(count, "names"))
    constant = fitted["best_constant"](strange).value
    assert fitted["best_grouped"](strange).value == pytest.approx(constant)
    known = Rows(judged.labels, judged.sites, judged.hosts, np.full(count, "cnn"), np.full(count, "names"))
    assert not np.allclose(fitted["best_grouped"](known).value, constant)


def test_one_diverged_host_does_not_move_a_baseline_beyond_the_clip() -> None:
    train, _ = rows(1)
    train.labels.uplift[:3] = -50.0
    fitted = fit_baselines(train, CONFIG)
    judged, _ = rows(2)
    for name, baseline in fitted.items():
        assert np.abs(baseline(judged).value).max() < 4 * REWARD_CLIP, name
    nothing = judged.take(np.zeros(0, dtype=np.int64))
    assert all(len(baseline(nothing).value) == 0 for baseline in fitted.values())
