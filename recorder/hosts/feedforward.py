"""Define feed-forward hosts with class logits [B, classes]: a multilayer perceptron, a convolutional and a residual network."""

from torch import Tensor, nn

from recorder.data import DataSet, Kind
from recorder.hosts.parts import FlatInput, activation_of, chain, initialize, norm_of, numbered
from recorder.hosts.spec import HostSpec


def _linear_block(inputs: int, spec: HostSpec) -> nn.Sequential:
    """Return one block from `inputs` features to the host's width."""
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
        self.blocks = nn.ModuleList(_linear_block(size, spec) for size in sizes)
        self.head = nn.Linear(spec.width, data.classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the class logits."""
        hidden = self.enter(inputs)
        for part in self.blocks:
            hidden = part(hidden)
        logits: Tensor = self.head(hidden)
        return logits

    def sites(self) -> tuple[str, ...]:
        """Return paths of the blocks after which a kernel can be grafted."""
        return numbered(len(self.blocks))


class CNN(nn.Module):
    """A convolutional network on images; class logits [B, classes]. Every block is a site; the first two halve the image."""

    def __init__(self, spec: HostSpec, data: DataSet, example: Tensor) -> None:
        super().__init__()
        width = max(6, spec.width // 4)
        depth = min(spec.depth, 4)
        sizes = [example.shape[0]] + [width] * (depth - 1)
        self.blocks = nn.ModuleList(self._block(size, width, spec, pool=k < 2) for k, size in enumerate(sizes))
        self.flatten = nn.Flatten()
        side = example.shape[-1] // 2 // (2 if depth > 1 else 1)
        self.head = nn.Linear(width * side * side, data.classes)

    @staticmethod
    def _block(inputs: int, width: int, spec: HostSpec, *, pool: bool) -> nn.Sequential:
        convolution = initialize(nn.Conv2d(inputs, width, 3, padding=1), spec.init_gain)
        parts = [("conv", convolution), *norm_of(spec, width, image=True), ("activation", activation_of(spec))]
        if spec.dropout:
            parts.append(("dropout", nn.Dropout2d(spec.dropout)))
        if pool:
            parts.append(("pool", nn.MaxPool2d(2)))
        return chain(parts)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the class logits."""
        hidden = inputs
        for part in self.blocks:
            hidden = part(hidden)
        logits: Tensor = self.head(self.flatten(hidden))
        return logits

    def sites(self) -> tuple[str, ...]:
        """Return paths of the blocks after which a kernel can be grafted."""
        return numbered(len(self.blocks))


class ResidualBlock(nn.Module):
    """h + f(h) with f of two layers, normalization and one activation; the shape stays."""

    def __init__(self, spec: HostSpec, width: int, *, image: bool) -> None:
        super().__init__()
        layers = [nn.Conv2d(width, width, 3, padding=1) if image else nn.Linear(width, width) for _ in range(2)]
        parts = [("enter", layers[0]), *norm_of(spec, width, image=image), ("activation", activation_of(spec))]
        if spec.dropout:
            parts.append(("dropout", nn.Dropout(spec.dropout)))
        self.change = chain([*parts, ("leave", layers[1])])
        initialize(self.change, spec.init_gain)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return input plus change, in the shape of the input."""
        change: Tensor = self.change(inputs)
        return inputs + change


class Residual(nn.Module):
    """A residual network; class logits [B, classes]. Every block is a site."""

    def __init__(self, spec: HostSpec, data: DataSet, example: Tensor) -> None:
        super().__init__()
        image = data.kind is Kind.IMAGE
        width = max(6, spec.width // 4) if image else spec.width
        if image:
            self.enter: nn.Module = nn.Conv2d(example.shape[0], width, 3, stride=2, padding=1)
        else:
            flat = FlatInput(data, example)
            self.enter = chain([("flat", flat), ("linear", nn.Linear(flat.features, width))])
        depth = max(2, min(spec.depth, 3 if image else 4))
        self.blocks = nn.ModuleList(ResidualBlock(spec, width, image=image) for _ in range(depth))
        self.pool: nn.Module = chain([("mean", nn.AdaptiveAvgPool2d(2)), ("flatten", nn.Flatten())]) if image else nn.Identity()
        self.head = nn.Linear(width * (4 if image else 1), data.classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the class logits."""
        hidden = self.enter(inputs)
        for part in self.blocks:
            hidden = part(hidden)
        logits: Tensor = self.head(self.pool(hidden))
        return logits

    def sites(self) -> tuple[str, ...]:
        """Return paths of the blocks after which a kernel can be grafted."""
        return numbered(len(self.blocks))
