"""GAT over one relation with its projections folded: the stock layer's function and parameters, fewer products."""

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv
from torch_geometric.utils import softmax


class FoldedGATConv(GATConv):  # type: ignore[misc]
    """PyG's `GATConv((in, in), out, heads, concat=False, edge_dim=...)` computed with (W x)·a = x·(Wᵀ a).

    The receivers' and the edges' projections become `heads` wide, and the sources are transformed before or after they
    are gathered, whichever side has fewer rows. Parameters and their names are the stock layer's own.
    """

    def forward(self, pair: tuple[Tensor, Tensor], edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """`pair` = (senders [M, in], receivers [N, in]), `edge_index` int64 [2, E], `edge_attr` [E, edge_dim] -> [N, out]."""
        senders, receivers = pair
        source, target = edge_index
        logits = (
            (senders @ self._fold(self.lin_src.weight, self.att_src))[source]
            + (receivers @ self._fold(self.lin_dst.weight, self.att_dst))[target]
            + edge_attr @ self._fold(self.lin_edge.weight, self.att_edge)
        )
        rows = receivers.shape[0]
        weight = softmax(nn.functional.leaky_relu(logits, self.negative_slope), target, num_nodes=rows)
        if rows < senders.shape[0]:
            return self._gather_first(senders, source, target, weight, rows)
        return self._transform_first(senders, source, target, weight, rows)

    def _fold(self, projection: Tensor, attention: Tensor) -> Tensor:
        """[heads * out, in] and [1, heads, out] -> [in, heads]."""
        per_head = projection.view(self.heads, self.out_channels, -1)
        folded: Tensor = (per_head * attention.view(self.heads, self.out_channels, 1)).sum(1).t()
        return folded

    def _gather_first(self, senders: Tensor, source: Tensor, target: Tensor, weight: Tensor, rows: int) -> Tensor:
        weighted = senders[source].unsqueeze(1) * weight.unsqueeze(2)
        gathered = weighted.new_zeros(rows, *weighted.shape[1:]).index_add_(0, target, weighted)
        heads = self.lin_src.weight.view(self.heads, self.out_channels, -1)
        stacked = heads.transpose(0, 1).reshape(self.out_channels, -1)
        mixed: Tensor = gathered.flatten(1) @ stacked.t() / self.heads
        return mixed

    def _transform_first(self, senders: Tensor, source: Tensor, target: Tensor, weight: Tensor, rows: int) -> Tensor:
        states = self.lin_src(senders).view(-1, self.heads, self.out_channels)
        messages = torch.einsum("ehc,eh->ec", states[source], weight) / self.heads
        gathered: Tensor = messages.new_zeros(rows, self.out_channels).index_add_(0, target, messages)
        return gathered
