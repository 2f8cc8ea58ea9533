"""The residual host: blocks that add to what they get, of convolutions on images and of linear layers elsewhere."""

from torch import Tensor, nn

from recorder.data import DataSet, Kind
from recorder.hosts.parts import FlatInput, activation_of, chain, initialize, norm_of, numbered
from recorder.hosts.spec import HostSpec


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
        """Input plus change, shape of the input."""
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
        """Class logits."""
        hidden = self.enter(inputs)
        for part in self.blocks:
            hidden = part(hidden)
        logits: Tensor = self.head(self.pool(hidden))
        return logits

    def sites(self) -> tuple[str, ...]:
        """Paths of the blocks after which a kernel can be grafted."""
        return numbered(len(self.blocks))
