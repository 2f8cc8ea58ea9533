"""Graft by a forward hook on a host block that returns lerp(h, S(h), alpha); once fossilized, the graft is part of the host."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recorder.hosts.parts import Grafted
from recorder.kernels import Kernel, Site, site_of
from recorder.runs.training import SEED_GROUP


@dataclass
class Graft:
    """A seed's module on a host block. At alpha 0 the block's output passes untouched; at 1 it is S(h)."""

    module: nn.Module
    alpha: float = 0.0
    handle: Any = None

    def hook(self, _module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        """Return what the block's output becomes."""
        return self.blend(output)

    def blend(self, output: Tensor) -> Tensor:
        """Return lerp(h, S(h), alpha) of the block's output h."""
        if self.alpha <= 0.0:
            return output
        changed: Tensor = self.module(output)
        if changed is output:  # the identity hands its input back: blending would only round its gradients
            return output
        return changed if self.alpha >= 1.0 else torch.lerp(output, changed, self.alpha)

    def remove(self) -> None:
        """Take the hook off the host."""
        if self.handle is not None:
            self.handle.remove()
            self.handle = None


def probe_site(model: nn.Module, path: str, example: Tensor) -> Site:
    """Return the site after block `path`, found by one forward pass on a few examples in eval mode without gradients."""
    found: list[Site] = []
    handle = model.get_submodule(path).register_forward_hook(lambda _m, _a, output: found.append(site_of(output)))
    flags = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()
            model(example[:2])
    finally:
        handle.remove()
        for module, training in flags.items():
            module.training = training
    return found[0]


def grow(site: Site, kernel: Kernel, seed: int) -> Graft:
    """Build the kernel for the site with its own random seed; at alpha 0, and not on any host yet."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Graft(kernel.build(site))


def plant(model: nn.Module, path: str, site: Site, kernel: Kernel, seed: int) -> Graft:
    """Build the kernel for the site and hook it on at alpha 0, where it changes nothing."""
    graft = grow(site, kernel, seed)
    graft.module.train(model.training)
    graft.handle = model.get_submodule(path).register_forward_hook(graft.hook)
    return graft


def join(grafts: Iterable[Graft], optimizer: torch.optim.Optimizer) -> None:
    """Let the host's optimizer train the seeds.

    Their parameters become a group with the first group's rate. The host's optimizer state is carried on.
    """
    parameters = [parameter for graft in grafts for parameter in graft.module.parameters()]
    if parameters:
        optimizer.add_param_group({"params": parameters, "name": SEED_GROUP, "lr": optimizer.param_groups[0]["lr"]})


def uproot(graft: Graft, optimizer: torch.optim.Optimizer) -> None:
    """Take a graft off its host, and its parameters and their state out of the optimizer."""
    graft.remove()
    for parameter in graft.module.parameters():
        optimizer.state.pop(parameter, None)
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group.get("name") != SEED_GROUP]


def fossilize(model: nn.Module, optimizer: torch.optim.Optimizer, path: str, graft: Graft) -> None:
    """Make a graft a part of its host for good: the block is followed by the seed, without a hook and without an alpha."""
    graft.remove()
    model.set_submodule(path, Grafted(model.get_submodule(path), graft.module))
    for group in optimizer.param_groups:
        if group.get("name") == SEED_GROUP:
            group["name"] = f"fossil-{path}"


@contextmanager
def seed_mode(graft: Graft | None, *, training: bool) -> Iterator[None]:
    """Put the seed's module in train or eval mode: it is not a child of the host, so it does not follow by itself."""
    if graft is None:
        yield
        return
    before = graft.module.training
    graft.module.train(training)
    try:
        yield
    finally:
        graft.module.train(before)


@contextmanager
def at_alpha(graft: Graft, alpha: float) -> Iterator[None]:
    """Set the graft to another alpha for a while."""
    before, graft.alpha = graft.alpha, alpha
    try:
        yield
    finally:
        graft.alpha = before
