"""The CNN host: blocks of 3 x 3 convolution, normalization, activation and pooling, and a linear head on the mean."""

from torch import Tensor, nn

from recorder.data import DataSet
from recorder.hosts.parts import activation_of, chain, initialize, norm_of, numbered
from recorder.hosts.spec import HostSpec


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
        """Class logits."""
        hidden = inputs
        for part in self.blocks:
            hidden = part(hidden)
        logits: Tensor = self.head(self.flatten(hidden))
        return logits

    def sites(self) -> tuple[str, ...]:
        """Paths of the blocks after which a kernel can be grafted."""
        return numbered(len(self.blocks))
