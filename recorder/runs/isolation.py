"""Train a seed in isolation: it learns what the host would need of it, while the host's output and training stay unchanged.

A shadow pass runs the host in eval mode (no statistics move, no dropout falls) with the seed at full strength. Its task loss is
differentiated with respect to the seed's own parameters alone, which have an optimizer of their own.
"""

import math
from dataclasses import dataclass, field

import torch
from torch.nn.functional import cross_entropy

from recorder.data import Examples
from recorder.hosts import Host, make_optimizer
from recorder.runs.grafts import Graft, at_alpha, seed_mode
from recorder.runs.training import evaluate
from recorder.speech.uplift import log_ratio


def shadow_loss(host: Host, graft: Graft, data: Examples, *, alpha: float = 1.0) -> float:
    """Return the mean cross-entropy on `data` as it would be with the seed at `alpha`, all in eval mode."""
    with at_alpha(graft, alpha), seed_mode(graft, training=False):
        return evaluate(host.model, data).loss


@dataclass
class Isolation:
    """A seed in training: its own optimizer, its gradient norms [steps], and the gap before the first step."""

    host: Host
    graft: Graft
    before: float
    optimizer: torch.optim.Optimizer | None
    norms: list[float] = field(default_factory=list)

    def step(self, seed: int) -> None:
        """Train the seed one step on a batch drawn with `seed`; nothing but its own parameters changes."""
        if self.optimizer is None:
            return
        parameters = list(self.graft.module.parameters())
        torch.default_generator.manual_seed(seed)
        part = self.host.share.train.take(torch.randint(len(self.host.share.train), (self.host.spec.batch,)))
        gradients = torch.autograd.grad(self._loss(part), parameters, allow_unused=True)
        squares = 0.0
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
            squares += 0.0 if gradient is None else float(gradient.square().sum())
        self.norms.append(math.sqrt(squares))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _loss(self, part: Examples) -> torch.Tensor:
        model = self.host.model
        flags = {module: module.training for module in model.modules()}
        model.eval()
        with at_alpha(self.graft, 1.0):
            loss = cross_entropy(model(part.inputs), part.targets)
        for module, training in flags.items():
            module.training = training
        return loss


def gap(host: Host, graft: Graft) -> float:
    """Return ln(shadow loss / the host's own loss) on the validation split: the cost of the seed now; NaN if not finite.

    The host goes on learning meanwhile, so only the ratio tells whether the seed did.
    """
    own, shadow = (shadow_loss(host, graft, host.share.validation, alpha=alpha) for alpha in (0.0, 1.0))
    return log_ratio(shadow, own)


def isolate(host: Host, graft: Graft) -> Isolation:
    """Begin to train a planted seed in isolation; a seed without parameters has nothing to learn."""
    parameters = list(graft.module.parameters())
    optimizer = make_optimizer([{"params": parameters}], host.spec) if parameters else None
    return Isolation(host, graft, gap(host, graft), optimizer)
