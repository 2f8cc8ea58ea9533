"""Train in steps that repeat exactly: each step's batch and random state follow from its number and a seed alone."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from recorder.data import Examples
from recorder.hosts import Host, make_optimizer
from recorder.stacks import repeat, stacked

SEED_GROUP: Final = "seed"  # name of the optimizer group of a graft on trial


@dataclass(frozen=True)
class Scores:
    """Mean cross-entropy and accuracy on a split, and each example's loss [N]."""

    loss: float
    accuracy: float
    losses: Tensor


def step_seed(*parts: int) -> int:
    """Return a 63-bit seed from a few numbers (splitmix-style mixing), so that streams do not overlap."""
    value = 0x9E3779B97F4A7C15
    for part in parts:
        value = ((value ^ (part + 0x9E3779B9)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        value ^= value >> 27
    return value & (2**63 - 1)


def draw(data: Examples, batch: int, seed: int) -> Examples:
    """Return the batch of a step; from `seed` on, the random state is the step's own."""
    torch.default_generator.manual_seed(seed)
    return data.take(torch.randint(len(data), (batch,)))


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Examples,
    *,
    batch: int,
    clip: float,
    seed: int,
) -> Tensor:
    """Take one optimizer step on a batch drawn with `seed`; return the batch's loss before the step (a detached scalar)."""
    part = draw(data, batch, seed)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = None
    loss = cross_entropy(model(part.inputs), part.targets)
    loss.backward()
    if clip > 0:
        clip_gradients(parameters, clip)
    optimizer.step()
    return loss.detach()


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> None:
    """Scale the gradients so that their common L2 norm is at most `limit`; `clip_grad_norm_` without its checks of devices."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients:
        scale = limit / (float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))) + 1e-6)
        if not scale >= 1.0:  # so that a NaN norm spreads to every gradient
            torch._foreach_mul_(gradients, scale)


@torch.inference_mode()
def evaluate(model: nn.Module, data: Examples) -> Scores:
    """Return loss and accuracy on a whole split, in eval mode; the training flags come back as they were."""
    logits = _logits(model, data.inputs)
    losses = cross_entropy(logits, data.targets, reduction="none")
    accuracy = float((logits.argmax(dim=1) == data.targets).float().mean())
    return Scores(float(losses.mean()), accuracy, losses)


@torch.inference_mode()
def mean_losses(model: nn.Module, data: Examples, sizes: Sequence[int], *, copies: int = 1) -> list[list[float]]:
    """Return the mean loss on each split, of each copy that the model is a stack of, by one forward pass.

    The splits lie one after the other in `data`, with `sizes` examples each.
    """
    losses = cross_entropy(_logits(model, data.inputs), data.targets.repeat(copies), reduction="none")
    return [[float(part.mean()) for part in row.split(list(sizes))] for row in losses.view(copies, -1)]


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the model's output in eval mode; the training flags come back as they were."""
    trained = [module for module in model.modules() if module.training]
    for module in trained:
        module.training = False
    logits: Tensor = model(inputs)
    for module in trained:
        module.training = True
    return logits


@dataclass(frozen=True)
class Snapshot:
    """A host's exact state at one step: copies of the model and of the optimizer's state."""

    model: nn.Module
    optimizer_state: dict[str, Any]
    step: int

    def restore(self, host: Host, copies: int = 1) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return fresh copies of the model, stacked, with an optimizer of the same kind that carries the old state on."""
        model = stacked(copy.deepcopy(self.model), copies)
        fresh = [dict(group) for group in _own_groups(host)]
        for group, saved in zip(fresh, _groups_of(host, model), strict=True):
            group["params"] = saved
        optimizer = make_optimizer(fresh, host.spec)
        optimizer.load_state_dict(_repeated(self.optimizer_state, copies))
        return model, optimizer


def _repeated(state: dict[str, Any], copies: int) -> dict[str, Any]:
    """Return a copy of an optimizer's state; for a stack, with what every parameter has once a copy (its step is a scalar)."""
    own: dict[str, Any] = copy.deepcopy(state)
    if copies > 1:
        for values in own["state"].values():
            values |= {name: repeat(value, copies) for name, value in values.items() if getattr(value, "ndim", 0)}
    return own


def _own_groups(host: Host) -> list[dict[str, Any]]:
    return [group for group in host.optimizer.param_groups if group.get("name") != SEED_GROUP]


def _groups_of(host: Host, model: nn.Module) -> list[list[nn.Parameter]]:
    twins = dict(zip((id(p) for p in host.model.parameters()), model.parameters(), strict=True))
    return [[twins[id(p)] for p in group["params"]] for group in _own_groups(host)]


def snapshot(host: Host, step: int) -> Snapshot:
    """Copy the host's model and optimizer state; the host goes on untouched.

    The copy has none of the host's hooks, so it has no graft that is still on trial; fossilized grafts are part of the model.
    """
    model = copy.deepcopy(host.model)
    for module in model.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return Snapshot(model, copy.deepcopy(_without_seeds(host.optimizer.state_dict())), step)


def _without_seeds(state: dict[str, Any]) -> dict[str, Any]:
    groups = [group for group in state["param_groups"] if group.get("name") != SEED_GROUP]
    kept = {index for group in groups for index in group["params"]}
    return {"state": {index: value for index, value in state["state"].items() if index in kept}, "param_groups": groups}
