"""The MLP host: blocks of Linear, normalization, activation and dropout, and a linear head; every block is a site."""

from torch import Tensor, nn

from recorder.activations import MODULES
from recorder.hosts.spec import HostSpec


def _norm(kind: str, width: int) -> list[tuple[str, nn.Module]]:
    modules = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
    return [("norm", modules[kind](width))] if kind in modules else []


def block(inputs: int, spec: HostSpec) -> nn.Sequential:
    """One block from `inputs` features to the host's width, initialized with the host's gain."""
    linear = nn.Linear(inputs, spec.width)
    nn.init.xavier_uniform_(linear.weight, gain=spec.init_gain)
    activation = {name: module for module, name in MODULES.items()}[spec.activation]()
    parts: list[tuple[str, nn.Module]] = [("linear", linear), *_norm(spec.norm, spec.width), ("activation", activation)]
    if spec.dropout:
        parts.append(("dropout", nn.Dropout(spec.dropout)))
    sequence = nn.Sequential()
    for name, module in parts:
        sequence.add_module(name, module)
    return sequence


class MLP(nn.Module):
    """A multilayer perceptron on flattened inputs; class logits [B, classes]."""

    def __init__(self, spec: HostSpec, features: int, classes: int) -> None:
        super().__init__()
        sizes = [features] + [spec.width] * (spec.depth - 1)
        self.blocks = nn.ModuleList(block(size, spec) for size in sizes)
        self.head = nn.Linear(spec.width, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Class logits."""
        hidden = inputs.flatten(1)
        for part in self.blocks:
            hidden = part(hidden)
        logits: Tensor = self.head(hidden)
        return logits

    def sites(self) -> tuple[str, ...]:
        """Paths of the blocks after which a kernel can be grafted."""
        return tuple(f"blocks.{index}" for index in range(len(self.blocks)))
