"""Define kernels that mix channels: linear, low-rank, bottleneck and two-layer projections, with a zero output layer."""

from typing import Final

from torch import nn

from recorder.kernels.base import Kernel, OverChannels, Residual, Site, zeroed


def _linear(site: Site) -> nn.Module:
    return OverChannels(site, Residual(zeroed(nn.Linear(site.channels, site.channels))))


def _low_rank(site: Site, rank: int) -> nn.Module:
    inner = nn.Sequential(
        nn.Linear(site.channels, min(rank, site.channels), bias=False),
        zeroed(nn.Linear(min(rank, site.channels), site.channels)),
    )
    return OverChannels(site, Residual(inner))


def _two_layers(site: Site, hidden: int, activation: nn.Module) -> nn.Module:
    inner = nn.Sequential(nn.Linear(site.channels, hidden), activation, zeroed(nn.Linear(hidden, site.channels)))
    return OverChannels(site, Residual(inner))


def _narrow(site: Site) -> int:
    return max(4, site.channels // 4)


KERNELS: Final = (
    Kernel("kernel-linear", "h + W h.", _linear),
    Kernel("kernel-low-rank-4", "h + B A h of rank 4.", lambda site: _low_rank(site, 4)),
    Kernel("kernel-low-rank-16", "h + B A h of rank 16.", lambda site: _low_rank(site, 16)),
    Kernel(
        "kernel-bottleneck-relu",
        "h + B relu(A h) through a quarter of the channels.",
        lambda site: _two_layers(site, _narrow(site), nn.ReLU()),
    ),
    Kernel(
        "kernel-bottleneck-gelu",
        "h + B gelu(A h) through a quarter of the channels.",
        lambda site: _two_layers(site, _narrow(site), nn.GELU()),
    ),
    Kernel(
        "kernel-mlp-relu",
        "h + B relu(A h) through twice the channels.",
        lambda site: _two_layers(site, 2 * site.channels, nn.ReLU()),
        stage=2,
    ),
    Kernel(
        "kernel-mlp-gelu",
        "h + B gelu(A h) through twice the channels.",
        lambda site: _two_layers(site, 2 * site.channels, nn.GELU()),
        stage=2,
    ),
    Kernel(
        "kernel-mlp-silu",
        "h + B silu(A h) through twice the channels.",
        lambda site: _two_layers(site, 2 * site.channels, nn.SiLU()),
        stage=2,
    ),
)
