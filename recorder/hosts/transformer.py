"""The transformer host: torch's own encoder layers over tokens or an image's rows, and a linear head on the mean."""

from torch import Tensor, nn

from recorder.data import DataSet
from recorder.hosts.parts import SequenceInput, activation_of, numbered
from recorder.hosts.spec import HostSpec

_HEADS = 4
_WIDEST = 32  # channels: a wider encoder costs a recording more than it teaches


class Transformer(nn.Module):
    """A small encoder; class logits [B, classes]. Every encoder layer is a site; `layer` hosts normalize first."""

    def __init__(self, spec: HostSpec, data: DataSet, example: Tensor) -> None:
        super().__init__()
        width = max(16, min(spec.width // 2, _WIDEST) // _HEADS * _HEADS)
        self.enter = SequenceInput(data, example, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                _HEADS,
                dim_feedforward=2 * width,
                dropout=spec.dropout,
                activation=activation_of(spec),
                batch_first=True,
                norm_first=spec.norm == "layer",
            )
            for _ in range(2 if spec.depth < 5 else 3)
        )
        self.head = nn.Linear(width, data.classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Class logits."""
        hidden = self.enter(inputs)
        for part in self.blocks:
            hidden = part(hidden)
        logits: Tensor = self.head(hidden.mean(dim=1))
        return logits

    def sites(self) -> tuple[str, ...]:
        """Paths of the blocks after which a kernel can be grafted."""
        return numbered(len(self.blocks))
