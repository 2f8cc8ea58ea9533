"""Define kernels that mix positions, for sequences and images only: convolutions, token mixing, attention, pooling."""

from collections.abc import Callable
from typing import Final

from torch import Tensor, nn

from recorder.kernels.base import SPATIAL, Kernel, Layout, Residual, Site, zeroed


class OverTime(nn.Module):
    """Applies a channels-first module of one dimension to [B, T, C]."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inner module's output in the layout [B, T, C]."""
        outputs: Tensor = self.inner(inputs.transpose(1, 2))
        return outputs.transpose(1, 2)


class OverPixels(nn.Module):
    """Applies a module of [B, positions, C] to an image [B, C, H, W]."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inner module's output in the layout [B, C, H, W]."""
        tokens: Tensor = self.inner(inputs.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(inputs.shape)


class TokenMixer(nn.Module):
    """f(h) = M h over positions, M zero, for the positions that the site has (as in MLP-Mixer, arXiv:2105.01601)."""

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.mix = zeroed(nn.Linear(positions, positions))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the change that the residual adds, [B, T, C]."""
        outputs: Tensor = self.mix(inputs.transpose(1, 2))
        return outputs.transpose(1, 2)


class SelfAttention(nn.Module):
    """f(h) = multi-head self-attention of h with a zero output projection; 4 heads if they divide the channels, else 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, 4 if channels % 4 == 0 else 1, batch_first=True)
        zeroed(self.attention.out_proj)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the change that the residual adds, [B, T, C]."""
        outputs: Tensor = self.attention(inputs, inputs, inputs, need_weights=False)[0]
        return outputs


def _convolution(site: Site, size: int, *, dilation: int = 1, depthwise: bool = False) -> nn.Module:
    groups, padding = site.channels if depthwise else 1, dilation * (size // 2)
    make: Callable[..., nn.Module] = nn.Conv2d if site.layout is Layout.IMAGE else nn.Conv1d
    inner = zeroed(make(site.channels, site.channels, size, padding=padding, dilation=dilation, groups=groups))
    return Residual(inner if site.layout is Layout.IMAGE else OverTime(inner))


def _over_tokens(site: Site, inner: nn.Module) -> nn.Module:
    return Residual(OverPixels(inner) if site.layout is Layout.IMAGE else inner)


def _average_pool(site: Site) -> nn.Module:
    if site.layout is Layout.IMAGE:
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return OverTime(nn.AvgPool1d(3, stride=1, padding=1, count_include_pad=False))


def _max_pool(site: Site) -> nn.Module:
    if site.layout is Layout.IMAGE:
        return nn.MaxPool2d(3, stride=1, padding=1)
    return OverTime(nn.MaxPool1d(3, stride=1, padding=1))


def _spatial(
    blueprint_id: str, description: str, build: Callable[[Site], nn.Module], *, tier: str = "SAFE", start: bool = True
) -> Kernel:
    return Kernel(blueprint_id, description, build, SPATIAL, tier=tier, stage=2, identity_start=start)


KERNELS: Final = (
    _spatial("kernel-depthwise-conv", "h + a 3-wide convolution per channel.", lambda s: _convolution(s, 3, depthwise=True)),
    _spatial("kernel-conv", "h + a 3-wide convolution.", lambda s: _convolution(s, 3)),
    _spatial("kernel-pointwise-conv", "h + a 1-wide convolution.", lambda s: _convolution(s, 1)),
    _spatial("kernel-dilated-conv", "h + a 3-wide convolution of dilation 2.", lambda s: _convolution(s, 3, dilation=2)),
    _spatial("kernel-token-mixer", "h + a linear mixture of positions.", lambda s: _over_tokens(s, TokenMixer(s.positions))),
    _spatial("kernel-self-attention", "h + self-attention.", lambda s: _over_tokens(s, SelfAttention(s.channels))),
    _spatial("kernel-average-pool", "Mean over 3 neighbours.", _average_pool, tier="EXPERIMENTAL", start=False),
    _spatial("kernel-max-pool", "Maximum over 3 neighbours.", _max_pool, tier="HIGH_RISK", start=False),
)
