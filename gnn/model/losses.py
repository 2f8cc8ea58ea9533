"""Compute the heads' training losses on measured outcomes; each is a weighted mean, zero (without gradient) without labels.

The first dimension of pair outputs is the ensemble's members. A loss is the sum of the members' losses, so that they learn
side by side and never from each other.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gnn.model.heads import PairAnswers
from gnn.model.targets import Pairs
from schemas.configuration import LossWeights

_BEND = 2.0  # units of tau: a larger error of the value counts linearly
_LIKELIHOOD = 0.25  # weight of the log variance's likelihood relative to the value's error
_WIDEST = 8.0  # units of tau: a larger error does not increase the variance further


@dataclass(frozen=True)
class LossScale:
    """Scales of the losses in nats: `tau` is the noise of one uplift, `choice_tau` the temperature of the target choice."""

    tau: float
    choice_tau: float


def segment_log_softmax(values: Tensor, segments: Tensor, count: int) -> Tensor:
    """Return the log-softmax of `values` [..., P] within each segment [P]."""
    place = segments.expand_as(values)
    shape = (*values.shape[:-1], count)
    top = values.new_full(shape, -torch.inf).scatter_reduce(-1, place, values.detach(), "amax")
    shifted = values - top.gather(-1, place)
    sums = values.new_zeros(shape).scatter_add(-1, place, shifted.exp())
    return shifted - sums.clamp(min=1e-30).log().gather(-1, place)


def choice_loss(logits: Tensor, uplift: Tensor, weight: Tensor, segments: Tensor, tau: float) -> Tensor:
    """Return the cross-entropy of softmax(logits) [..., P] against softmax(uplift / tau) over each segment's choices: [...].

    A segment's weight is the mean weight of its choices; a segment with a single measured choice is left out.
    """
    if uplift.numel() == 0:
        return logits.sum(-1)
    count = int(segments.max()) + 1
    target = segment_log_softmax(uplift / tau, segments, count).exp()
    each = -target * segment_log_softmax(logits, segments, count)
    choices = torch.bincount(segments, minlength=count)
    mass = weight.new_zeros(count).index_add_(0, segments, weight) / choices.clamp(min=1)
    shares = mass * (choices > 1)
    total = each.new_zeros((*each.shape[:-1], count)).index_add_(-1, segments, each)
    return (total * shares).sum(-1) / shares.sum().clamp(min=1e-12)


def policy_loss(answers: PairAnswers, labels: Pairs, scale: LossScale) -> Tensor:
    """Return the loss of choosing a (seed, kernel) pair in each state, plus each pair's distance of utility from uplift."""
    known = labels.uplift.isfinite()
    seed, weight, uplift = labels.seed[known], labels.weight[known], labels.uplift[known]
    joint = answers.scores[:, seed] + answers.logits[:, seed, labels.kernel[known]]
    choice = choice_loss(joint, uplift, weight, labels.graph[known], scale.choice_tau)
    return (choice + _distance(joint * scale.choice_tau, uplift, weight, scale)).sum()


def value_loss(answers: PairAnswers, labels: Pairs, scale: LossScale) -> Tensor:
    """Return the Huber loss of the value in units of tau, plus the Gaussian likelihood of the log variance at that value."""
    known = labels.uplift.isfinite()
    place = (slice(None), labels.seed[known], labels.kernel[known])
    value, log_var, weight = answers.value[place], answers.log_var[place], labels.weight[known]
    error = (labels.uplift[known] - value).detach() / scale.tau
    residual = (error.clamp(-_WIDEST, _WIDEST) * scale.tau) ** 2
    likelihood = _mean(0.5 * (log_var + residual * torch.exp(-log_var)), weight)
    return (_distance(value, labels.uplift[known], weight, scale) + _LIKELIHOOD * likelihood).sum()


def risk_loss(answers: PairAnswers, labels: Pairs) -> Tensor:
    """Return the cross-entropy of the five risk classes, without class weights, so that probabilities stay calibrated."""
    known = labels.risk >= 0
    logits = answers.risk[:, labels.seed[known], labels.kernel[known]]
    chosen = functional.log_softmax(logits, dim=-1).gather(2, labels.risk[known].expand(len(logits), -1).unsqueeze(2))
    return _mean(-chosen.squeeze(2), labels.weight[known]).sum()


def blending_loss(blending: Tensor, labels: Pairs, scale: LossScale) -> Tensor:
    """Return the loss of choosing among the blending methods measured for the same (site, kernel); `blending` is [G, 4]."""
    row, method = labels.methods.isfinite().nonzero(as_tuple=True)
    logits = blending[labels.graph[row], method]
    return choice_loss(logits, labels.methods[row, method], labels.weight[row], row, scale.tau)


def total_loss(
    answers: PairAnswers, blending: Tensor, labels: Pairs, weights: LossWeights, scale: LossScale
) -> dict[str, Tensor]:
    """Return the loss of each head, summed over K members, and `total`, their weighted sum."""
    parts = {
        "policy": policy_loss(answers, labels, scale),
        "value": value_loss(answers, labels, scale),
        "risk": risk_loss(answers, labels),
        "blending": blending_loss(blending, labels, scale),
    }
    total = torch.stack([getattr(weights, name) * loss for name, loss in parts.items()]).sum()
    return parts | {"total": total}


def _distance(value: Tensor, uplift: Tensor, weight: Tensor, scale: LossScale) -> Tensor:
    error = (uplift - value) / scale.tau
    return _mean(functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=_BEND), weight)


def _mean(each: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean over the last dimension."""
    return (each * weight).sum(-1) / weight.sum().clamp(min=1e-12)
