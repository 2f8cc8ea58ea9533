"""A graft: a forward hook on a host block that returns lerp(h, S(h), alpha)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recorder.kernels import Kernel, Site, site_of


@dataclass
class Graft:
    """A seed's module on a host block. At alpha 0 the block's output passes untouched; at 1 it is S(h)."""

    module: nn.Module
    alpha: float = 0.0
    handle: Any = None

    def hook(self, _module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        """Blend the block's output with the seed's."""
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
    """The site after block `path`, found by one forward pass on a few examples in eval mode without gradients."""
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


def attach(model: nn.Module, optimizer: torch.optim.Optimizer, path: str, site: Site, kernel: Kernel, seed: int) -> Graft:
    """Build the kernel for the site with its own random seed, hook it on, and add its parameters as a new group.

    The host's optimizer state is carried on; the new group takes the first group's settings.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = kernel.build(site)
    module.train(model.training)
    graft = Graft(module)
    graft.handle = model.get_submodule(path).register_forward_hook(graft.hook)
    parameters = list(module.parameters())
    if parameters:
        optimizer.add_param_group({"params": parameters, "name": "seed", "lr": optimizer.param_groups[0]["lr"]})
    return graft


@contextmanager
def seed_mode(graft: Graft | None, *, training: bool) -> Iterator[None]:
    """The seed's module in train or eval mode: it is not a child of the host, so it does not follow by itself."""
    if graft is None:
        yield
        return
    before = graft.module.training
    graft.module.train(training)
    try:
        yield
    finally:
        graft.module.train(before)
