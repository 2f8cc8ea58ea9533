"""The MLP host: blocks of Linear, normalization, activation and dropout, and a linear head; every block is a site."""

from torch import Tensor, nn

from recorder.data import DataSet
from recorder.hosts.parts import FlatInput, activation_of, chain, initialize, norm_of, numbered
from recorder.hosts.spec import HostSpec


def block(inputs: int, spec: HostSpec) -> nn.Sequential:
    """One block from `inputs` features to the host's width."""
    linear = initialize(nn.Linear(inputs, spec.width), spec.init_gain)
    parts = [("linear", linear), *norm_of(spec, spec.width, image=False), ("activation", activation_of(spec))]
    if spec.dropout:
        parts.append(("dropout", nn.Dropout(spec.dropout)))
    return chain(parts)


class MLP(nn.Module):
    """A multilayer perceptron on flattened inputs; class logits [B, classes]."""

    def __init__(self, spec: HostSpec, data: DataSet, example: Tensor) -> None:
        super().__init__()
        self.enter = FlatInput(data, example)
        sizes = [self.enter.features] + [spec.width] * (spec.depth - 1)
        self.blocks = nn.ModuleList(block(size, spec) for size in sizes)
        self.head = nn.Linear(spec.width, data.classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Class logits."""
        hidden = self.enter(inputs)
        for part in self.blocks:
            hidden = part(hidden)
        logits: Tensor = self.head(hidden)
        return logits

    def sites(self) -> tuple[str, ...]:
        """Paths of the blocks after which a kernel can be grafted."""
        return numbered(len(self.blocks))
