"""Define kernels with a gate: SwiGLU, gated residual, highway, squeeze-and-excite."""

from typing import Final

import torch
from torch import Tensor, nn

from recorder.kernels.base import Kernel, Layout, OverChannels, Residual, Site, zeroed


class SwiGLU(nn.Module):
    """f(h) = C (silu(A h) * B h) with a zero C, over the last dimension (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Linear(channels, channels)
        self.activation = nn.SiLU()
        self.value = nn.Linear(channels, channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the change that the residual adds, shape of the input."""
        outputs: Tensor = self.out(self.activation(self.gate(inputs)) * self.value(inputs))
        return outputs


class GatedChange(nn.Module):
    """f(h) = sigmoid(A h) * B h with a zero B, over the last dimension."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Linear(channels, channels)
        self.activation = nn.Sigmoid()
        self.value = zeroed(nn.Linear(channels, channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the change that the residual adds, shape of the input."""
        outputs: Tensor = self.activation(self.gate(inputs)) * self.value(inputs)
        return outputs


class Highway(nn.Module):
    """T * relu(B h) + (1 - T) * h with T = sigmoid(A h), whose bias starts at -3 (Srivastava 2015, arXiv:1505.00387)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Linear(channels, channels)
        nn.init.constant_(self.gate.bias, -3.0)
        self.gating = nn.Sigmoid()
        self.value = nn.Linear(channels, channels)
        self.activation = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the gated mixture, shape of the input."""
        transform: Tensor = self.gating(self.gate(inputs))
        return torch.lerp(inputs, self.activation(self.value(inputs)), transform)


class SqueezeExcite(nn.Module):
    """h * 2 sigmoid(B relu(A mean(h))), the mean over positions, B zero, so a factor of 1 at the start (arXiv:1709.01507)."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        narrow = max(4, site.channels // 4)
        self.squeeze = nn.Linear(site.channels, narrow)
        self.activation = nn.ReLU()
        self.excite = zeroed(nn.Linear(narrow, site.channels))
        self.gating = nn.Sigmoid()
        self.spatial = site.layout is not Layout.VECTOR

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the input with rescaled channels (last dimension), same shape."""
        pooled = inputs.flatten(1, -2).mean(dim=1) if self.spatial else inputs
        factor: Tensor = 2.0 * self.gating(self.excite(self.activation(self.squeeze(pooled))))
        return inputs * factor.reshape(factor.shape[0], *(1,) * (inputs.ndim - 2), factor.shape[-1])


KERNELS: Final = (
    Kernel("kernel-swiglu", "h + C (silu(A h) * B h).", lambda s: OverChannels(s, Residual(SwiGLU(s.channels))), stage=2),
    Kernel("kernel-gated-residual", "h + sigmoid(A h) * B h.", lambda s: OverChannels(s, Residual(GatedChange(s.channels)))),
    Kernel(
        "kernel-highway",
        "A highway gate between h and relu(B h), nearly closed at the start.",
        lambda s: OverChannels(s, Highway(s.channels)),
        tier="EXPERIMENTAL",
        stage=2,
        identity_start=False,
    ),
    Kernel("kernel-squeeze-excite", "Channels rescaled by their pooled state.", lambda s: OverChannels(s, SqueezeExcite(s))),
)
