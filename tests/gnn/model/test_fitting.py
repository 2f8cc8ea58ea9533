"""Fitting: the recipe learns, the rounds stop where they should, and a stop changes nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from gnn.model.checkpoint import Checkpoints
from gnn.model.experiment import pose
from gnn.model.predictions import predict
from gnn.model.targets import Labels
from gnn.model.training import Fitted, clipped, fit
from schemas.configuration import ModelConfig, TrainingConfig
from tests.gnn.model.store import MemoryStore, problem

SMALL = ModelConfig(hidden=8, activation_hidden=8, out=8, heads=2, head_hidden=16, rank=4, members=2)
CONFIG = TrainingConfig(epochs=5, rounds_epochs=2, batch_graphs=6, checkpoint_seconds=0.0, horizon=100, model=SMALL)
LEARNING = CONFIG.model_copy(update={"epochs": 60, "average": 0.9, "identity_dropout": 0.0, "id_dropout": 0.0})


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def posed() -> tuple[MemoryStore, Labels, Labels]:
    """A store, its labels, and none."""
    store, examples = problem(18, kernels=6)
    labels = pose(store, examples, CONFIG).labels
    return store, labels, labels.take(np.zeros(0, dtype=np.int64))


def trained(posed: tuple[MemoryStore, Labels, Labels], config: TrainingConfig = CONFIG, **more: object) -> Fitted:
    store, labels, nothing = posed
    return fit(store, labels, nothing, config, config.model, more.pop("checkpoints", Checkpoints(None, "")), **more)


def same(one: Fitted, other: Fitted) -> bool:
    pairs = zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_fitting_twice_gives_the_same_weights(posed: tuple[MemoryStore, Labels, Labels]) -> None:
    first = trained(posed)
    assert same(first, trained(posed))
    assert first.epochs == CONFIG.epochs
    assert not same(first, trained(posed, CONFIG.model_copy(update={"seed": 1})))


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_stop_before_at_or_after_the_rounds_end_changes_nothing(
    posed: tuple[MemoryStore, Labels, Labels], tmp_path: Path, epoch: int
) -> None:
    def stop(_: str, done: int, total: int) -> None:
        if done == epoch:
            raise Stop

    with pytest.raises(Stop):
        trained(posed, checkpoints=Checkpoints(tmp_path / "c.pt", "x", every_s=0.0), progress=stop)
    seen: list[int] = []
    resumed = trained(
        posed,
        checkpoints=Checkpoints(tmp_path / "c.pt", "x", every_s=0.0),
        progress=lambda _, done, total: seen.append(done),
    )
    assert seen[0] == epoch + 1
    assert same(resumed, trained(posed))


def test_the_rounds_learn_first_and_then_stay_while_the_heads_go_on(posed: tuple[MemoryStore, Labels, Labels]) -> None:
    states: list[dict[str, torch.Tensor]] = []

    class Watching(Checkpoints):
        def save(self, state: dict, *, last: bool) -> None:
            states.append({name: tensor.clone() for name, tensor in state["network"].items()})

    trained(posed, checkpoints=Watching(None, ""))
    rounds = [name for name in states[0] if name.startswith("rounds.") and not torch.equal(states[0][name], states[1][name])]
    heads = [name for name in states[0] if name.startswith("pair_head.layers")]
    assert rounds
    assert all(torch.equal(states[2][name], states[-1][name]) for name in rounds)
    assert all(not torch.equal(states[2][name], states[-1][name]) for name in heads)


def test_a_small_set_is_learned(posed: tuple[MemoryStore, Labels, Labels]) -> None:
    store, labels, _ = posed
    model = SMALL.model_copy(update={"dropout": 0.0, "input_dropout": 0.0, "head_dropout": 0.0, "head_hidden": 32})
    config = LEARNING.model_copy(update={"model": model, "weight_decay": 0.0})
    found = predict(trained(posed, config).network, store, labels, 8)
    truth = labels.uplift.clip(-config.reward_clip, config.reward_clip)
    assert 1.0 - np.mean((found.value - truth) ** 2) / np.var(truth) > 0.8
    states = [np.flatnonzero(labels.graph == graph) for graph in labels.graphs()]
    assert np.mean([spearmanr(found.logit[rows], truth[rows]).statistic for rows in states if len(rows) > 2]) > 0.8
    assert found.risk_logits is not None
    assert (found.risk_logits.argmax(1) == labels.risk).mean() > 0.8


def test_the_curve_falls_and_other_hosts_are_judged_once(posed: tuple[MemoryStore, Labels, Labels]) -> None:
    store, labels, _ = posed
    fitted = fit(store, labels, labels, LEARNING, SMALL, Checkpoints(None, ""))
    curve = [row["training"] for row in fitted.history if "training" in row]
    assert len(curve) == LEARNING.epochs
    assert np.mean(curve[-5:]) < 0.8 * curve[0]
    assert set(fitted.history[-1]) == {"epoch", "policy", "value", "risk", "blending", "total"}


def test_without_a_single_label_the_network_is_the_untrained_one(posed: tuple[MemoryStore, Labels, Labels]) -> None:
    store, _, nothing = posed
    fitted = fit(store, nothing, nothing, CONFIG, SMALL, Checkpoints(None, ""))
    assert (fitted.epochs, fitted.history) == (0, ())
    assert bool(fitted.network(store.batch([0])).seed_value.isfinite().all())


def test_a_graft_that_diverged_counts_as_the_worst(posed: tuple[MemoryStore, Labels, Labels]) -> None:
    _, labels, _ = posed
    uplift, risk = labels.uplift.copy(), labels.risk.copy()
    uplift[:4], risk[:4] = [np.nan, np.nan, 3.0, -3.0], [4, -1, 0, 4]
    found = clipped(Labels(**(vars(labels) | {"uplift": uplift, "risk": risk})), CONFIG).uplift
    assert found[[0, 2, 3]].tolist() == [-CONFIG.reward_clip, CONFIG.reward_clip, -CONFIG.reward_clip]
    assert np.isnan(found[1])


def test_the_kernels_descriptors_are_kept_with_the_weights(posed: tuple[MemoryStore, Labels, Labels]) -> None:
    store, labels, nothing = posed
    descriptors = torch.zeros(32, 24)
    fitted = fit(store, labels, nothing, CONFIG, SMALL, Checkpoints(None, ""), kernels=descriptors)
    assert torch.equal(fitted.network.pair_head.descriptors, descriptors)
    assert bool(trained(posed).network.pair_head.descriptors.any())
