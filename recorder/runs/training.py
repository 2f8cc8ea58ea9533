"""Training steps that repeat exactly: each step's batch and random state follow from its number and a seed alone."""

import copy
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from recorder.data import Examples
from recorder.hosts import Host, make_optimizer

SEED_GROUP: Final = "seed"  # name of the optimizer group of a graft on trial


@dataclass(frozen=True)
class Scores:
    """Mean cross-entropy and accuracy on a split, and each example's loss [N]."""

    loss: float
    accuracy: float
    losses: Tensor


def step_seed(*parts: int) -> int:
    """A 63-bit seed from a few numbers (splitmix-style mixing), so that streams do not overlap."""
    value = 0x9E3779B97F4A7C15
    for part in parts:
        value = ((value ^ (part + 0x9E3779B9)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        value ^= value >> 27
    return value & (2**63 - 1)


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Examples, *, batch: int, clip: float, seed: int
) -> Tensor:
    """One optimizer step on a batch drawn with `seed`; returns the batch's loss before the step (a detached scalar)."""
    torch.default_generator.manual_seed(seed)
    part = data.take(torch.randint(len(data), (batch,)))
    optimizer.zero_grad(set_to_none=True)
    loss = cross_entropy(model(part.inputs), part.targets)
    loss.backward()
    if clip > 0:
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], clip)
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def evaluate(model: nn.Module, data: Examples) -> Scores:
    """Loss and accuracy on a whole split, in eval mode; the training flags come back as they were."""
    flags = {module: module.training for module in model.modules()}
    model.eval()
    logits = model(data.inputs)
    for module, training in flags.items():
        module.training = training
    losses = cross_entropy(logits, data.targets, reduction="none")
    accuracy = float((logits.argmax(dim=1) == data.targets).float().mean())
    return Scores(float(losses.mean()), accuracy, losses)


@dataclass(frozen=True)
class Snapshot:
    """A host's exact state at one step: copies of the model and of the optimizer's state."""

    model: nn.Module
    optimizer_state: dict[str, Any]
    step: int

    def restore(self, host: Host) -> tuple[nn.Module, torch.optim.Optimizer]:
        """A fresh copy of the model with an optimizer of the same kind that carries the old state on."""
        model = copy.deepcopy(self.model)
        fresh = [dict(group) for group in _own_groups(host)]
        for group, saved in zip(fresh, _groups_of(host, model), strict=True):
            group["params"] = saved
        optimizer = make_optimizer(fresh, host.spec)
        optimizer.load_state_dict(copy.deepcopy(self.optimizer_state))
        return model, optimizer


def _own_groups(host: Host) -> list[dict[str, Any]]:
    return [group for group in host.optimizer.param_groups if group.get("name") != SEED_GROUP]


def _groups_of(host: Host, model: nn.Module) -> list[list[nn.Parameter]]:
    twins = dict(zip((id(p) for p in host.model.parameters()), model.parameters(), strict=True))
    return [[twins[id(p)] for p in group["params"]] for group in _own_groups(host)]


def snapshot(host: Host, step: int) -> Snapshot:
    """Copy the host's model and optimizer state; the host goes on untouched.

    The copy has none of its hooks, so no graft that is still on trial; fossilized grafts are part of the model.
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
