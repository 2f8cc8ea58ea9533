"""Training losses of the heads on measured outcomes; each is a weighted mean, zero (without gradient) where no label is."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gnn.model.outputs import Outputs
from gnn.model.readout import segment_mean
from gnn.model.targets import LabelledBatch
from schemas.configuration import LossWeights


@dataclass(frozen=True)
class LossScale:
    """`tau`: noise of one uplift; `spread`: standard deviation of the training uplifts; both in nats of loss."""

    tau: float
    spread: float


def segment_log_softmax(values: Tensor, segments: Tensor, count: int) -> Tensor:
    """Log-softmax of `values` [P] within each segment [P]."""
    top = values.new_full((count,), -torch.inf).scatter_reduce(0, segments, values.detach(), "amax")
    shifted = values - top[segments]
    sums = values.new_zeros(count).index_add_(0, segments, shifted.exp())
    return shifted - sums.clamp(min=1e-30).log()[segments]


def choice_loss(logits: Tensor, uplift: Tensor, weight: Tensor, segments: Tensor, tau: float) -> Tensor:
    """Cross-entropy of softmax(logits) against softmax(uplift / tau), both over the P measured choices of each segment.

    A segment's weight is the mean weight of its choices; one with a single measured choice says nothing and is left out.
    """
    if logits.numel() == 0:
        return logits.sum()
    count = int(segments.max()) + 1
    target = segment_log_softmax(uplift / tau, segments, count).exp()
    each = -target * segment_log_softmax(logits, segments, count)
    choices = torch.bincount(segments, minlength=count)
    shares = segment_mean(weight.unsqueeze(1), segments, count).squeeze(1) * (choices > 1)
    total = logits.new_zeros(count).index_add_(0, segments, each)
    return (total * shares).sum() / shares.sum().clamp(min=1e-12)


def policy_loss(outputs: Outputs, labels: LabelledBatch, tau: float) -> Tensor:
    """Mean of the choice of a kernel within each site and of the choice of a (site, kernel) pair within each state."""
    known = labels.uplift.isfinite()
    seed, graph, weight = labels.seed[known], labels.graph[known], labels.weight[known]
    logits, uplift = outputs.seed_policy_logits[seed, labels.kernel[known]], labels.uplift[known]
    within_site = choice_loss(logits, uplift, weight, seed, tau)
    within_state = choice_loss(outputs.seed_scores[seed] + logits, uplift, weight, graph, tau)
    return 0.5 * (within_site + within_state)


def value_loss(outputs: Outputs, labels: LabelledBatch, spread: float) -> Tensor:
    """Huber loss of the value in units of `spread`, plus the Gaussian likelihood of the log variance at that value."""
    known = labels.uplift.isfinite()
    place = (labels.seed[known], labels.kernel[known])
    value, log_var, weight = outputs.seed_value[place], outputs.seed_value_log_var[place], labels.weight[known]
    error = (labels.uplift[known] - value) / spread
    location = functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=2.0)
    residual = (error.detach().clamp(-5.0, 5.0) * spread) ** 2
    likelihood = 0.5 * (log_var + residual * torch.exp(-log_var))
    return _mean(location + 0.25 * likelihood, weight)


def risk_loss(outputs: Outputs, labels: LabelledBatch) -> Tensor:
    """Cross-entropy of the five risk classes; unweighted by class, so that probabilities stay calibrated."""
    known = labels.risk >= 0
    logits = outputs.seed_risk_logits[labels.seed[known], labels.kernel[known]]
    return _mean(functional.cross_entropy(logits, labels.risk[known], reduction="none"), labels.weight[known])


def blending_loss(outputs: Outputs, labels: LabelledBatch, tau: float) -> Tensor:
    """Choice among the blending methods that were measured for the same (site, kernel) of a state."""
    row, method = labels.methods.isfinite().nonzero(as_tuple=True)
    logits = outputs.blending_logits[labels.graph[row], method]
    return choice_loss(logits, labels.methods[row, method], labels.weight[row], row, tau)


def total_loss(outputs: Outputs, labels: LabelledBatch, weights: LossWeights, scale: LossScale) -> dict[str, Tensor]:
    """The losses by head, and `total`, their weighted sum."""
    parts = {
        "policy": policy_loss(outputs, labels, scale.tau),
        "value": value_loss(outputs, labels, scale.spread),
        "risk": risk_loss(outputs, labels),
        "blending": blending_loss(outputs, labels, scale.tau),
    }
    total = torch.stack([getattr(weights, name) * loss for name, loss in parts.items()]).sum()
    return parts | {"total": total}


def _mean(each: Tensor, weight: Tensor) -> Tensor:
    return (each * weight).sum() / weight.sum().clamp(min=1e-12)
