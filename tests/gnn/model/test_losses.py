"""Losses and baselines: hand calculations, laws and what gradients may reach."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gnn.model.baselines import Ridge, constant
from gnn.model.heads import PairAnswers
from gnn.model.losses import LossScale, choice_loss, policy_loss, risk_loss, total_loss, value_loss
from gnn.model.network import TamiyoGNN
from gnn.model.priors import kernel_priors, start_from
from gnn.model.site import flat_features
from gnn.model.targets import LabelledBatch, Pairs, collate, locate
from schemas.configuration import LossWeights, ModelConfig
from tests.gnn.model.store import problem

SMALL = ModelConfig(hidden=16, activation_hidden=8, out=8, head_hidden=8, rank=4, members=2, dropout=0.0)
SCALE = LossScale(tau=0.06, choice_tau=0.05)


def labelled(graphs: int = 4) -> LabelledBatch:
    store, examples = problem(graphs)
    labels, _ = locate(store, examples)
    return collate(store, labels, list(range(graphs)))


def network() -> TamiyoGNN:
    torch.manual_seed(0)
    return TamiyoGNN(SMALL)


def answer(net: TamiyoGNN, labels: LabelledBatch) -> tuple[PairAnswers, torch.Tensor]:
    """What the members say of the batch's pairs, and the blending logits."""
    read = net.eval().read(labels.batch)
    return net.pair_head(read.seeds), net.graph_head(read.graphs)["blending_logits"]


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


def test_losses_of_members_are_their_own() -> None:
    labels, (answers, blending) = labelled(), answer(network(), labelled())
    whole = total_loss(answers, blending, labels, LossWeights(), SCALE)
    parts = [PairAnswers(**{k: v[[number]] for k, v in vars(answers).items()}) for number in range(SMALL.members)]
    alone = [total_loss(part, blending, labels, LossWeights(), SCALE) for part in parts]
    for name in ("policy", "value", "risk"):
        assert sum(loss[name].item() for loss in alone) == pytest.approx(whole[name].item(), rel=1e-5)


def test_unmeasured_pairs_get_no_gradient() -> None:
    labels = labelled()
    answers, blending = answer(network(), labels)
    total = total_loss(answers, blending, labels, LossWeights(), SCALE)["total"]
    measured = torch.zeros_like(answers.value[0], dtype=torch.bool)
    measured[labels.seed, labels.kernel] = True
    for gradient in torch.autograd.grad(total, [answers.logits, answers.value, answers.log_var, answers.risk]):
        assert bool((gradient[:, ~measured] == 0).all())
        assert bool((gradient[:, measured] != 0).any())


def test_missing_labels_are_left_out_and_none_at_all_is_zero() -> None:
    labels, net = labelled(), network()
    answers, blending = answer(net, labels)
    half = torch.arange(len(labels.uplift)) % 2 == 0
    nan = torch.where(half, labels.uplift, torch.nan)
    dropped = replace(labels, **{name: getattr(labels, name)[half] for name in Pairs.__dataclass_fields__})
    missing = replace(labels, uplift=nan)
    assert torch.allclose(value_loss(answers, missing, SCALE), value_loss(answers, dropped, SCALE))
    assert torch.allclose(policy_loss(answers, missing, SCALE), policy_loss(answers, dropped, SCALE))
    nothing = replace(labels, uplift=torch.full_like(labels.uplift, torch.nan), risk=torch.full_like(labels.risk, -1),
                      methods=torch.full_like(labels.methods, torch.nan))  # fmt: skip
    losses = total_loss(answers, blending, nothing, LossWeights(), SCALE)
    assert {name: loss.item() for name, loss in losses.items()} == dict.fromkeys(losses, 0.0)
    losses["total"].backward()
    assert all(p.grad is None or bool((p.grad == 0).all()) for p in net.parameters())


def test_weights_tell_how_much_an_example_counts() -> None:
    labels = labelled()
    answers, _ = answer(network(), labels)
    zero = replace(labels, weight=torch.where(labels.risk == 0, 0.0, labels.weight))
    kept = labels.risk != 0
    only = replace(labels, **{k: getattr(labels, k)[kept] for k in ("seed", "kernel", "weight", "risk")})
    assert torch.allclose(risk_loss(answers, zero), risk_loss(answers, only))


def test_the_total_is_the_weighted_sum() -> None:
    labels = labelled()
    losses = total_loss(*answer(network(), labels), labels, LossWeights(), SCALE)
    weights = LossWeights().model_dump()
    expected = sum(weights[name] * losses[name].item() for name in weights)
    assert losses["total"].item() == pytest.approx(expected, rel=1e-6)


def test_an_untrained_network_answers_about_as_the_best_constant() -> None:
    store, examples = problem(10)
    labels, _ = locate(store, examples)
    priors = kernel_priors(labels)
    torch.manual_seed(0)
    net = TamiyoGNN(ModelConfig(dropout=0.0)).eval()
    start_from(net, priors, 0.06, 0.05)
    net.fit_inputs(store.batch(range(10)))
    batch = collate(store, labels, list(range(10)))
    outputs = net(batch.batch)
    expected = constant(priors, labels.kernel, 0.06)
    found = outputs.seed_value[batch.seed, batch.kernel].detach().numpy()
    assert np.abs(found - expected.value).mean() < 0.5 * priors.spread


def test_ridge_is_the_primal_solution() -> None:
    store, examples = problem(14)
    labels, _ = locate(store, examples)
    features = flat_features(store, labels, 4)[:, :6]
    hosts = np.array(examples["host"].to_pylist())[labels.example]
    scores = (features - features.mean(0)) / features.std(0)
    ridge = Ridge(scores, labels, hosts)
    z = scores / np.sqrt(6)
    hot = np.eye(32)[labels.kernel]
    design = np.hstack([z, hot, *(hot[:, [k]] * z for k in range(32))])
    w = labels.weight
    offset = np.average(labels.uplift, weights=w)
    gram = design.T @ (w[:, None] * design) + ridge.penalty * np.eye(design.shape[1])
    expected = design @ np.linalg.solve(gram, design.T @ (w * (labels.uplift - offset))) + offset
    assert np.allclose(ridge(scores, labels.kernel), expected, atol=1e-8)


def test_flat_features_are_the_same_in_any_batch() -> None:
    store, examples = problem(6)
    labels, _ = locate(store, examples)
    assert np.allclose(flat_features(store, labels, 1), flat_features(store, labels, 5))
