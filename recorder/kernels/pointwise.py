"""Define kernels that act on every element or channel alone, or that normalize a site's output.

Identity, scale, shift, affine, dropout, noise, activations and normalizations.
"""

from typing import Final

import torch
from torch import Tensor, nn

from recorder.kernels.base import Kernel, Layout, OverChannels, Site


class ChannelAffine(nn.Module):
    """h * scale + shift per channel (last dimension), starting at scale 1 and shift 0; either may be absent."""

    def __init__(self, channels: int, *, scale: bool, shift: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels)) if scale else None
        self.shift = nn.Parameter(torch.zeros(channels)) if shift else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the scaled and shifted input, same shape."""
        scaled = inputs if self.scale is None else inputs * self.scale
        return scaled if self.shift is None else scaled + self.shift


class GaussianNoise(nn.Module):
    """h + level * (standard deviation of h) * standard normal noise while training; h itself in eval mode."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the noisy input, same shape."""
        if not self.training:
            return inputs
        return inputs + self.level * inputs.detach().std() * torch.randn_like(inputs)


class SequenceBatchNorm(nn.Module):
    """BatchNorm over the channels of [B, T, C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the normalized input, same shape."""
        outputs: Tensor = self.norm(inputs.flatten(0, 1))
        return outputs.reshape(inputs.shape)


def _affine(site: Site, *, scale: bool, shift: bool) -> nn.Module:
    return OverChannels(site, ChannelAffine(site.channels, scale=scale, shift=shift))


def _prelu(site: Site) -> nn.Module:
    return nn.PReLU(1 if site.layout is Layout.SEQUENCE else site.channels, init=1.0)


def _batch_norm(site: Site) -> nn.Module:
    if site.layout is Layout.IMAGE:
        return nn.BatchNorm2d(site.channels)
    return SequenceBatchNorm(site.channels) if site.layout is Layout.SEQUENCE else nn.BatchNorm1d(site.channels)


KERNELS: Final = (
    Kernel("kernel-identity", "Passes its input through.", lambda site: nn.Identity(), stage=0),
    Kernel("kernel-scale", "A learned factor per channel.", lambda site: _affine(site, scale=True, shift=False)),
    Kernel("kernel-shift", "A learned offset per channel.", lambda site: _affine(site, scale=False, shift=True)),
    Kernel("kernel-affine", "A learned factor and offset per channel.", lambda site: _affine(site, scale=True, shift=True)),
    Kernel(
        "kernel-dropout",
        "Drops a fifth of the elements while training.",
        lambda site: nn.Dropout(0.2),
        identity_start=False,
        bounds={"rate": (0.0, 0.5)},
    ),
    Kernel(
        "kernel-noise",
        "Adds Gaussian noise of a tenth of the signal's spread while training.",
        lambda site: GaussianNoise(0.1),
        identity_start=False,
        bounds={"level": (0.0, 0.5)},
    ),
    Kernel("kernel-prelu", "A rectifier with a learned slope per channel that starts at 1.", _prelu),
    Kernel("kernel-silu", "The SiLU function.", lambda site: nn.SiLU(), tier="EXPERIMENTAL", stage=2, identity_start=False),
    Kernel("kernel-tanh", "The tanh function.", lambda site: nn.Tanh(), tier="EXPERIMENTAL", stage=2, identity_start=False),
    Kernel(
        "kernel-layer-norm",
        "Layer normalization over the channels.",
        lambda site: OverChannels(site, nn.LayerNorm(site.channels)),
        tier="EXPERIMENTAL",
        identity_start=False,
    ),
    Kernel(
        "kernel-rms-norm",
        "Root-mean-square normalization over the channels.",
        lambda site: OverChannels(site, nn.RMSNorm(site.channels)),
        tier="EXPERIMENTAL",
        identity_start=False,
    ),
    Kernel(
        "kernel-batch-norm",
        "Batch normalization of each channel.",
        _batch_norm,
        tier="HIGH_RISK",
        stage=2,
        identity_start=False,
    ),
)
