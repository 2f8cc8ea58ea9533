"""Define the policy's 32 kernels as PyTorch modules, in the order of `schemas.kernels.KERNELS`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from torch import Tensor

from recorder.kernels import gates, pointwise, projections, spatial
from recorder.kernels.base import Kernel, Layout, Site
from schemas.kernels import KERNELS as ORDER

__all__ = ["KERNELS", "Kernel", "Layout", "Site", "fitting", "site_of"]

_ALL: Final = {kernel.blueprint_id: kernel for module in (pointwise, projections, gates, spatial) for kernel in module.KERNELS}
KERNELS: Final[Mapping[str, Kernel]] = MappingProxyType({name: _ALL[name] for name in ORDER})


def fitting(layout: Layout) -> tuple[Kernel, ...]:
    """Return kernels that fit a site of this layout, in the policy's order; the others are masked there."""
    return tuple(kernel for kernel in KERNELS.values() if layout in kernel.layouts)


def site_of(output: Tensor) -> Site:
    """Return the site that a block's output tensor makes: [B, C], [B, T, C] or [B, C, H, W]."""
    if output.ndim == 2:
        return Site(Layout.VECTOR, output.shape[1])
    if output.ndim == 3:
        return Site(Layout.SEQUENCE, output.shape[2], output.shape[1])
    return Site(Layout.IMAGE, output.shape[1], output.shape[2] * output.shape[3])
