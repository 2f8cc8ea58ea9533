"""Encoders: declared channels, masks and embedded ids of a node type or relation become one dense tensor."""

from typing import Final

import torch
from torch import Tensor, nn

from gnn.model.config import ModelConfig
from schemas.artifacts import REGISTRIES
from schemas.features import Feature, FeatureGroup, NodeType

IDENTITIES: Final = frozenset({"seed_id", "blueprint_id"})
COMPILE_STATUS: Final = "compile_status"


def embedding_width(feature: Feature, config: ModelConfig) -> int:
    """Width of that categorical feature's embedding."""
    if feature.name == COMPILE_STATUS:
        return config.compile_embedding
    return config.identity_embedding if feature.name in IDENTITIES else config.embedding


class GroupEmbedding(nn.Module):
    """[values | masks | embedded ids] of one feature group: float32 [N, `width`].

    Tables have the registry's fixed capacity, so growth never moves a row, and start at zero: an entry that training never
    met stays neutral instead of random.
    """

    def __init__(self, group: FeatureGroup, config: ModelConfig) -> None:
        super().__init__()
        self.names = [feature.name for feature in group.categorical]
        widths = [embedding_width(feature, config) for feature in group.categorical]
        self.capacities = [REGISTRIES[str(feature.registry)].capacity for feature in group.categorical]
        self.tables = nn.ModuleDict(
            {
                feature.name: nn.Embedding(capacity, width)
                for feature, capacity, width in zip(group.categorical, self.capacities, widths, strict=True)
            }
        )
        for parameter in self.tables.parameters():
            nn.init.zeros_(parameter)
        self.width = group.width + sum(widths)

    def forward(self, values: Tensor, ids: Tensor) -> Tensor:
        """`values` float32 [N, group.width], `ids` int64 [N, K] -> [N, width] in the parameters' dtype."""
        parts = [values]
        for column, name in enumerate(self.names):
            parts.append(self.tables[name](ids[:, column]))
        return torch.cat(parts, dim=1)


class NodeEncoder(nn.Module):
    """Linear -> ReLU -> LayerNorm over a node type's [numeric | masks | embeddings]."""

    def __init__(self, node: NodeType, config: ModelConfig) -> None:
        super().__init__()
        self.out = config.activation_hidden if node.name == "activation" else config.hidden
        self.embedding = GroupEmbedding(node, config)
        self.linear = nn.Linear(self.embedding.width, self.out)
        self.norm = nn.LayerNorm(self.out)

    def forward(self, values: Tensor, ids: Tensor) -> Tensor:
        """Node states [N, out]."""
        state: Tensor = self.norm(torch.relu(self.linear(self.embedding(values, ids))))
        return state
