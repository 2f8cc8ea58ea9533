"""Define hosts over tokens or an image's rows, with class logits [B, classes]: a recurrent network and a transformer."""

from torch import Tensor, nn

from recorder.data import DataSet
from recorder.hosts.parts import SequenceInput, activation_of, chain, numbered
from recorder.hosts.spec import HostSpec


class RecurrentBlock(nn.Module):
    """One recurrent layer and the host's dropout; [B, T, C] to [B, T, C]."""

    def __init__(self, spec: HostSpec, width: int) -> None:
        super().__init__()
        kind = nn.LSTM if spec.index % 2 else nn.GRU
        self.cell = kind(width, width, batch_first=True)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the hidden states of every position."""
        outputs: Tensor = self.dropout(self.cell(inputs)[0])
        return outputs


class Recurrent(nn.Module):
    """A recurrent network; class logits [B, classes]. Every layer is a site."""

    def __init__(self, spec: HostSpec, data: DataSet, example: Tensor) -> None:
        super().__init__()
        width = max(16, spec.width // 2)
        self.enter = SequenceInput(data, example, width)
        self.blocks = nn.ModuleList(RecurrentBlock(spec, width) for _ in range(2))
        self.mix = chain([("linear", nn.Linear(width, width)), ("activation", activation_of(spec))])
        self.head = nn.Linear(width, data.classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the class logits."""
        hidden = self.enter(inputs)
        for part in self.blocks:
            hidden = part(hidden)
        logits: Tensor = self.head(self.mix(hidden[:, -1]))
        return logits

    def sites(self) -> tuple[str, ...]:
        """Return paths of the blocks after which a kernel can be grafted."""
        return numbered(len(self.blocks))


_HEADS = 4
_WIDEST = 32  # channels: a wider encoder costs a recording more than it teaches


class Transformer(nn.Module):
    """A small transformer encoder; class logits [B, classes]. Every encoder layer is a site; `layer` hosts normalize first."""

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
        """Return the class logits."""
        hidden = self.enter(inputs)
        for part in self.blocks:
            hidden = part(hidden)
        logits: Tensor = self.head(hidden.mean(dim=1))
        return logits

    def sites(self) -> tuple[str, ...]:
        """Return paths of the blocks after which a kernel can be grafted."""
        return numbered(len(self.blocks))
