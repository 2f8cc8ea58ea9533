"""Losses and baselines: hand calculations, laws and what gradients may reach."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gnn.model.baselines import Ridge, constant
from gnn.model.losses import LossScale, choice_loss, policy_loss, risk_loss, total_loss, value_loss
from gnn.model.network import TamiyoGNN
from gnn.model.priors import kernel_priors, start_from
from gnn.model.readout import flat_features
from gnn.model.targets import LabelledBatch, collate, locate
from schemas.configuration import LossWeights, ModelConfig
from tests.gnn.model.store import problem

SMALL = ModelConfig(hidden=16, activation_hidden=8, out=8, head_hidden=8, dropout=0.0)
SCALE = LossScale(tau=0.06, spread=0.1)


def labelled(graphs: int = 4) -> LabelledBatch:
    store, examples = problem(graphs)
    labels, _ = locate(store, examples)
    return collate(store, labels, list(range(graphs)))


def network() -> TamiyoGNN:
    torch.manual_seed(0)
    return TamiyoGNN(SMALL)


def test_choice_loss_by_hand() -> None:
    logits, uplift = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.06, 0.0, 5.0])
    segments, weight = torch.tensor([0, 0, 1]), torch.tensor([1.0, 3.0, 100.0])
    target = torch.softmax(torch.tensor([1.0, 0.0]), 0)
    expected = -(target * torch.log_softmax(torch.tensor([1.0, 0.0]), 0)).sum()
    assert float(choice_loss(logits, uplift, weight, segments, 0.06)) == pytest.approx(float(expected), rel=1e-6)


def test_choice_loss_is_least_at_the_target() -> None:
    uplift, segments = torch.tensor([0.1, -0.05, 0.0, 0.2]), torch.tensor([0, 0, 0, 0])
    best = choice_loss(uplift / 0.06, uplift, torch.ones(4), segments, 0.06)
    other = choice_loss(uplift / 0.06 + torch.tensor([0.3, 0.0, 0.0, 0.0]), uplift, torch.ones(4), segments, 0.06)
    assert best < other
    shifted = choice_loss(uplift / 0.06 + 7.0, uplift, torch.ones(4), segments, 0.06)
    assert float(shifted) == pytest.approx(float(best), rel=1e-5)


def test_unmeasured_pairs_get_no_gradient() -> None:
    labels, net = labelled(), network()
    outputs = net(labels.batch)
    logits = outputs.seed_policy_logits
    (gradient,) = torch.autograd.grad(policy_loss(outputs, labels, 0.06), logits)
    measured = torch.zeros_like(gradient, dtype=torch.bool)
    measured[labels.seed, labels.kernel] = True
    assert bool((gradient[~measured] == 0).all())
    assert bool((gradient[measured] != 0).any())


def test_missing_labels_are_left_out_and_none_at_all_is_zero() -> None:
    labels, net = labelled(), network()
    outputs = net(labels.batch)
    half = torch.arange(len(labels.uplift)) % 2 == 0
    nan = torch.where(half, labels.uplift, torch.nan)
    dropped = replace(
        labels, **{k: getattr(labels, k)[half] for k in ("graph", "seed", "kernel", "uplift", "weight", "risk", "methods")}
    )
    assert torch.allclose(value_loss(outputs, replace(labels, uplift=nan), 0.1), value_loss(outputs, dropped, 0.1))
    nothing = replace(labels, uplift=torch.full_like(labels.uplift, torch.nan), risk=torch.full_like(labels.risk, -1),
                      methods=torch.full_like(labels.methods, torch.nan))  # fmt: skip
    losses = total_loss(outputs, nothing, LossWeights(), SCALE)
    assert {name: loss.item() for name, loss in losses.items()} == dict.fromkeys(losses, 0.0)
    losses["total"].backward()
    assert all(p.grad is None or bool((p.grad == 0).all()) for p in net.parameters())


def test_weights_tell_how_much_an_example_counts() -> None:
    labels, net = labelled(), network()
    outputs = net(labels.batch)
    zero = replace(labels, weight=torch.where(labels.risk == 0, 0.0, labels.weight))
    kept = labels.risk != 0
    only = replace(labels, **{k: getattr(labels, k)[kept] for k in ("seed", "kernel", "weight", "risk")})
    assert torch.allclose(risk_loss(outputs, zero), risk_loss(outputs, only))


def test_the_total_is_the_weighted_sum() -> None:
    labels, net = labelled(), network()
    losses = total_loss(net(labels.batch), labels, LossWeights(), SCALE)
    weights = LossWeights().model_dump()
    expected = sum(weights[name] * losses[name].item() for name in weights)
    assert losses["total"].item() == pytest.approx(expected, rel=1e-6)


def test_an_untrained_network_answers_about_as_the_best_constant() -> None:
    store, examples = problem(10)
    labels, _ = locate(store, examples)
    priors = kernel_priors(labels)
    net = TamiyoGNN(ModelConfig(dropout=0.0)).eval()
    start_from(net, priors, 0.06)
    batch = collate(store, labels, list(range(10)))
    outputs = net(batch.batch)
    expected = constant(priors, labels.kernel, 0.06)
    found = outputs.seed_value[batch.seed, batch.kernel].detach().numpy()
    assert np.abs(found - expected.value).mean() < 0.3 * priors.spread


def test_ridge_is_the_primal_solution() -> None:
    store, examples = problem(14)
    labels, _ = locate(store, examples)
    features = flat_features(store, labels, 4)[:, :6]
    hosts = np.array(examples["host"].to_pylist())[labels.example]
    ridge = Ridge(features, labels, hosts)
    spread = features.std(0)
    z = np.clip((features - features.mean(0)) / spread, -5, 5) / np.sqrt(6)
    hot = np.eye(32)[labels.kernel]
    design = np.hstack([z, hot, *(hot[:, [k]] * z for k in range(32))])
    w = labels.weight
    offset = np.average(labels.uplift, weights=w)
    gram = design.T @ (w[:, None] * design) + ridge.penalty * np.eye(design.shape[1])
    expected = design @ np.linalg.solve(gram, design.T @ (w * (labels.uplift - offset))) + offset
    assert np.allclose(ridge(features, labels.kernel, 0.06).value, expected, atol=1e-8)


def test_flat_features_are_the_same_in_any_batch() -> None:
    store, examples = problem(6)
    labels, _ = locate(store, examples)
    assert np.allclose(flat_features(store, labels, 1), flat_features(store, labels, 5))
