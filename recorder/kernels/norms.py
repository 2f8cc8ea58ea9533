"""Kernels that replace a site's output by its normalized self."""

from typing import Final

from torch import Tensor, nn

from recorder.kernels.base import Kernel, Layout, OverChannels, Site


class SequenceBatchNorm(nn.Module):
    """BatchNorm over the channels of [B, T, C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalized input, same shape."""
        outputs: Tensor = self.norm(inputs.flatten(0, 1))
        return outputs.reshape(inputs.shape)


def _batch_norm(site: Site) -> nn.Module:
    if site.layout is Layout.IMAGE:
        return nn.BatchNorm2d(site.channels)
    return SequenceBatchNorm(site.channels) if site.layout is Layout.SEQUENCE else nn.BatchNorm1d(site.channels)


KERNELS: Final = (
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
