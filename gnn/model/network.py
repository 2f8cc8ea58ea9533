"""TamiyoGNN: encoders, GraphSAGE then GAT rounds over eleven relations and their reverses, and the heads."""

from typing import Final, cast

import torch
from torch import Tensor, nn

from gnn.graph.batch import GraphBatch, Triple
from gnn.graph.plan import ALL_TYPES
from gnn.model.encoders import COMPILE_STATUS, GroupEmbedding, NodeEncoder
from gnn.model.heads import GraphHead, SeedHead
from gnn.model.layers import MessageRound, RoundShape, State, gat_round, own_round, parameter_key, sage_round
from gnn.model.outputs import Outputs
from gnn.model.readout import (
    graph_logsumexp,
    graph_readout,
    masked,
    pair_log_weights,
    pair_probabilities,
    seed_readout,
    segment_mean,
    segment_sum,
)
from schemas.configuration import ModelConfig
from schemas.features import NODE_TYPES, PARAMETER, RELATIONS

READ_BY_HEADS: Final = ("layer", "seed", "blueprint", "context")


class TamiyoGNN(nn.Module):
    """The policy network; every dimension follows from `schemas.features` and `ModelConfig`, none is lazy."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleDict({node.name: NodeEncoder(node, config) for node in NODE_TYPES})
        self.edges = nn.ModuleDict(
            {parameter_key(r.triple): GroupEmbedding(r, config) for r in RELATIONS} if config.messages else {}
        )
        self.rounds = nn.ModuleList(self._rounds())
        self.seed_head = SeedHead(config)
        self.graph_head = GraphHead(config)
        self.blueprint_head = nn.Linear(config.out, 1)
        self._initialise()

    def round_shapes(self) -> list[RoundShape]:
        """Shapes of the rounds, in order."""
        config, total = self.config, self.config.sage_layers + self.config.gat_layers
        widths = {node.name: cast(NodeEncoder, self.encoders[node.name]).out for node in NODE_TYPES}
        relations = RELATIONS if config.messages else ()
        edges = {r.triple: cast(GroupEmbedding, self.edges[parameter_key(r.triple)]).width for r in relations}
        found = []
        for number in range(total):
            out = config.hidden if number < config.sage_layers else config.out
            receivers = READ_BY_HEADS if number == total - 1 else ALL_TYPES
            found.append(RoundShape(widths, edges, out, config.dropout, receivers))
            widths = dict.fromkeys(widths, out)
        return found

    def _rounds(self) -> list[MessageRound]:
        config, shapes = self.config, self.round_shapes()
        if not config.messages:
            return [own_round(shape) for shape in shapes]
        sage, gat = shapes[: config.sage_layers], shapes[config.sage_layers :]
        return [sage_round(shape) for shape in sage] + [gat_round(shape, heads=config.heads) for shape in gat]

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def fit_inputs(self, batch: GraphBatch) -> None:
        """Fit the scales of all input channels on the graphs of `batch` (training hosts only)."""
        for name, encoder in self.encoders.items():
            cast(NodeEncoder, encoder).embedding.scale.fit(batch.x[name])
        for relation in RELATIONS if self.config.messages else ():
            embedding = cast(GroupEmbedding, self.edges[parameter_key(relation.triple)])
            embedding.scale.fit(batch.edge_attr[relation.triple])

    def forward(self, batch: GraphBatch, kernel_mask: Tensor | None = None) -> Outputs:
        """Outputs of `batch`; `kernel_mask` bool [S, 32] is true where a seed may take a kernel (all where None)."""
        state = self.states(batch)
        seeds = self.seed_head(seed_readout(state, batch))
        answers = self.graph_head(graph_readout(state, batch))
        logits = masked(seeds[0], kernel_mask)
        answers |= self._from_seeds(batch, answers, (logits, *seeds[1:]))
        return Outputs(
            **answers,
            compile_embedding=self._compile_embedding(batch),
            seed_policy_logits=logits,
            seed_value=seeds[1],
            seed_value_log_var=seeds[2],
            seed_risk_logits=seeds[3],
            seed_scores=seeds[4],
            blueprint_scores=self.blueprint_head(state["blueprint"]).squeeze(1),
        )

    def states(self, batch: GraphBatch) -> State:
        """Node states after the last round: {node type: [N, out]}."""
        state: State = {n.name: self.encoders[n.name](batch.x[n.name], batch.ids[n.name]) for n in NODE_TYPES}
        attributes: dict[Triple, Tensor] = {}
        if self.config.messages:
            for relation in RELATIONS:
                triple = relation.triple
                encode = self.edges[parameter_key(triple)]
                attributes[triple] = encode(batch.edge_attr[triple], batch.edge_ids[triple])
        for messages in self.rounds:
            state = messages(state, batch, attributes)
        return state

    def _from_seeds(self, batch: GraphBatch, own: dict[str, Tensor], seeds: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Policy, value and risk of each graph as the expectation over its seeds; its own answers where there are none."""
        logits, value, log_var, risk, scores = seeds
        graph_of, count = batch.node_batch("seed"), batch.num_graphs
        weights = pair_log_weights(scores, logits)
        policy = graph_logsumexp(weights, graph_of, count)
        share = pair_probabilities(weights, graph_of, policy)
        chosen = segment_sum(share.sum(1, keepdim=True), graph_of, count) > 0
        mean = segment_sum((share * value).sum(1, keepdim=True), graph_of, count)
        spread = log_var.exp() + (value - mean[graph_of]) ** 2
        variance = segment_sum((share * spread).sum(1, keepdim=True), graph_of, count)
        classes = segment_sum((share.unsqueeze(2) * torch.softmax(risk, dim=2)).sum(1), graph_of, count)
        seeded = (batch.ptr["seed"].diff() > 0).unsqueeze(1)
        return {
            "policy_logits": torch.where(seeded, policy, own["policy_logits"]),
            "value": torch.where(chosen, mean, own["value"]),
            "value_log_var": torch.where(chosen, torch.log(variance.clamp(min=1e-12)), own["value_log_var"]),
            "risk_logits": torch.where(chosen, torch.log(classes.clamp(min=1e-12)), own["risk_logits"]),
        }

    def _compile_embedding(self, batch: GraphBatch) -> Tensor:
        """Mean over a graph's parameter groups of the embedded compile state of their blueprint: [G, 16]."""
        column = [feature.name for feature in PARAMETER.categorical].index(COMPILE_STATUS)
        table = cast(NodeEncoder, self.encoders["parameter"]).embedding.tables[COMPILE_STATUS]
        embedded = table(batch.ids["parameter"][:, column])
        return segment_mean(embedded, batch.node_batch("parameter"), batch.num_graphs)
