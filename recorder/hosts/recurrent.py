"""The recurrent host: stacked GRU or LSTM layers over tokens or an image's rows, and two linear layers on the last state."""

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
        """Hidden states of every position."""
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
        """Class logits."""
        hidden = self.enter(inputs)
        for part in self.blocks:
            hidden = part(hidden)
        logits: Tensor = self.head(self.mix(hidden[:, -1]))
        return logits

    def sites(self) -> tuple[str, ...]:
        """Paths of the blocks after which a kernel can be grafted."""
        return numbered(len(self.blocks))
