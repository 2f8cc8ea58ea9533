"""Train copies of a host together: one stacked network, one optimizer, and a graft on each copy that has one."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from recorder.data import Examples
from recorder.hosts import Host
from recorder.runs.grafts import Graft, join
from recorder.runs.training import Snapshot
from recorder.stacks import fold, unfold


@dataclass(frozen=True)
class Copies:
    """Copies of a host in training, which share batches and random states. `grafts` holds each copy's graft, if it has one."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    grafts: Sequence[Graft | None]

    def __len__(self) -> int:
        return len(self.grafts)

    def train(self, batch: Examples, clip: float) -> list[float]:
        """Take one step of every copy on the same batch; return each copy's mean loss before it."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for parameter in parameters:
            parameter.grad = None
        losses = cross_entropy(self.model(batch.inputs), batch.targets.repeat(len(self)), reduction="none")
        means = losses.view(len(self), -1).mean(dim=1)
        means.sum().backward()
        if clip > 0:
            self._clip(clip)
        with torch.no_grad():  # the step itself, without what torch wraps around it: hooks, a profiler's record, a graph break
            inspect.unwrap(type(self.optimizer).step)(self.optimizer)
        found: list[float] = means.tolist()
        return found

    @torch.no_grad()
    def _clip(self, limit: float) -> None:
        """Scale the gradients of each copy so that their common L2 norm is at most `limit`."""
        shared = [p.grad.view(len(self), -1) for p in self.model.parameters() if p.grad is not None]
        norms = torch.linalg.vector_norm(torch.cat(shared, dim=1), dim=1)
        owners, own = self._own_gradients()
        if own:
            squares = torch.stack(torch._foreach_norm(own)).square()
            norms = norms.square().index_add(0, torch.tensor(owners), squares).sqrt()
        scales = (limit / (norms + 1e-6)).clamp(max=1.0)  # a NaN norm stays one, and spreads to every gradient of its copy
        for gradient in shared:
            gradient.mul_(scales[:, None])
        if own:
            factors: list[float] = scales.tolist()
            torch._foreach_mul_(own, [factors[owner] for owner in owners])

    def _own_gradients(self) -> tuple[list[int], list[Tensor]]:
        """Return the gradients of the grafts' parameters, and the copy that each belongs to."""
        found = [
            (number, p.grad)
            for number, graft in enumerate(self.grafts)
            if graft is not None
            for p in graft.module.parameters()
            if p.grad is not None
        ]
        return [number for number, _ in found], [gradient for _, gradient in found]


def make_copies(host: Host, state: Snapshot, grafts: Sequence[Graft | None], paths: Sequence[str | None]) -> Copies:
    """Restore the host's state once for each graft (None: a copy without), with the grafts at their paths."""
    model, optimizer = state.restore(host, len(grafts))
    join([graft for graft in grafts if graft is not None], optimizer)
    for path in dict.fromkeys(path for path in paths if path is not None):
        here = {number: graft for number, graft in enumerate(grafts) if graft is not None and paths[number] == path}
        model.get_submodule(path).register_forward_hook(_hook(here, len(grafts)))
    model.train()
    return Copies(model, optimizer, grafts)


def _hook(grafts: Mapping[int, Graft], count: int) -> Any:
    """Return a forward hook that blends the output of these copies with their seeds'.

    Each seed begins with the block's random state, and so do the layers behind it: what one draws is nothing to the others.
    """

    def blend(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        parts, generator = list(unfold(output, count)), torch.default_generator
        state = generator.get_state()
        for number, graft in grafts.items():
            parts[number] = graft.blend(parts[number])
            generator.set_state(state)
        return fold(parts)

    return blend
