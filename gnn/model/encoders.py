"""Encode the declared channels, masks and embedded ids of a node type or relation as one dense tensor."""

from typing import Final

import torch
from torch import Tensor, nn

from gnn.model.site import squash
from schemas.artifacts import REGISTRIES
from schemas.configuration import ModelConfig
from schemas.features import Feature, FeatureGroup, Kind, NodeType

IDENTITIES: Final = frozenset({"seed_id", "blueprint_id"})
COMPILE_STATUS: Final = "compile_status"
CLIP: Final = 5.0  # standard deviations
LEAST_SPREAD: Final = 0.05  # so that a channel that hardly varies is not amplified


def embedding_width(feature: Feature, config: ModelConfig) -> int:
    """Return the width of a categorical feature's embedding."""
    if feature.name == COMPILE_STATUS:
        return config.compile_embedding
    return config.identity_embedding if feature.name in IDENTITIES else config.embedding


class InputScale(nn.Module):
    """Makes value channels comparable: sign(x) log1p(|x|), standardized by `center` and `scale`, clipped, 0 if missing.

    The declared transforms leave channels whose spreads differ by three orders of magnitude (a layer's samples_per_s against
    its run's EWMA prior): without scaling, one channel would drown out the others in the encoder's LayerNorm. `center` and
    `scale` (float32 [value_width]) are fitted on training hosts; flags and multi-hots stay as they are.
    """

    center: Tensor
    scale: Tensor
    source: Tensor

    def __init__(self, group: FeatureGroup) -> None:
        super().__init__()
        channels = [(place, f.kind) for place, f in enumerate(group.valued) for _ in range(f.channels)]
        self.value_width = group.value_width
        self.numeric = [kind is Kind.NUMERIC for _, kind in channels]
        self.register_buffer("center", torch.zeros(group.value_width))
        self.register_buffer("scale", torch.ones(group.value_width))
        self.own_masks = group.width == 2 * group.value_width  # each value channel has its own mask
        # which mask channel belongs to each value channel; on the CPU even if the rest is built without storage
        places = torch.tensor([place for place, _ in channels], dtype=torch.int64, device="cpu")
        self.register_buffer("source", places, persistent=False)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Split `values` (float32 [N, value_width + masks]) into scaled values and masks."""
        raw, masks = values.tensor_split([self.value_width], dim=1)
        of_value = masks if self.own_masks else masks[:, self.source]
        standard = squash(raw).sub_(self.center).div_(self.scale).clamp_(-CLIP, CLIP).mul_(of_value)
        return standard, masks

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        """Set `center` and `scale` of the numeric channels from measured `values` [N, value_width + masks]."""
        raw, masks = squash(values[:, : self.value_width].double()), values[:, self.value_width :].double()
        known = masks[:, self.source]
        count = known.sum(0).clamp(min=1.0)
        mean = (raw * known).sum(0) / count
        spread = (((raw - mean) * known) ** 2).sum(0).div(count).sqrt()
        numeric = torch.tensor(self.numeric, dtype=torch.bool) & (known.sum(0) > 0)
        self.center.copy_(torch.where(numeric, mean, 0.0))
        self.scale.copy_(torch.where(numeric, spread.clamp(min=LEAST_SPREAD), 1.0))


class GroupEmbedding(nn.Module):
    """[scaled values | masks | embedded ids] of one feature group: float32 [N, `width`].

    Embedding tables have the registry's fixed capacity, so its growth never moves a row. They start at zero, so an entry that
    training never saw stays neutral instead of random.
    """

    def __init__(self, group: FeatureGroup, config: ModelConfig) -> None:
        super().__init__()
        self.names = [feature.name for feature in group.categorical]
        widths = [embedding_width(feature, config) for feature in group.categorical]
        capacities = [REGISTRIES[str(feature.registry)].capacity for feature in group.categorical]
        self.tables = nn.ModuleDict(
            {name: nn.Embedding(rows, width) for name, rows, width in zip(self.names, capacities, widths, strict=True)}
        )
        for parameter in self.tables.parameters():
            nn.init.zeros_(parameter)
        self.scale = InputScale(group)
        self.dense = group.width
        self.width = group.width + sum(widths)

    def forward(self, values: Tensor, ids: Tensor) -> Tensor:
        """Embed `values` (float32 [N, group.width]) and `ids` (int64 [N, K]): [N, width] in the parameters' dtype."""
        parts = [table(column) for table, column in zip(self.tables.values(), ids.unbind(1), strict=True)]
        return torch.cat([*self.scale(values), *parts], dim=1)


class NodeEncoder(nn.Module):
    """Linear -> ReLU -> LayerNorm over a node type's [numeric | masks | embeddings]."""

    def __init__(self, node: NodeType, config: ModelConfig) -> None:
        super().__init__()
        self.out = config.activation_hidden if node.name == "activation" else config.hidden
        self.embedding = GroupEmbedding(node, config)
        self.linear = nn.Linear(self.embedding.width, self.out)
        self.norm = nn.LayerNorm(self.out)

    def forward(self, values: Tensor, ids: Tensor) -> Tensor:
        """Return the node states [N, out]."""
        state: Tensor = self.norm(torch.relu(self.linear(self.embedding(values, ids))))
        return state
