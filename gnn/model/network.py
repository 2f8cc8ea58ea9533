"""Define TamiyoGNN: encoders, GraphSAGE then GAT rounds over eleven relations and their reverses, and the heads."""

from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import Tensor, nn

from gnn.graph.batch import GraphBatch, Triple
from gnn.graph.plan import ALL_TYPES
from gnn.model.encoders import COMPILE_STATUS, GroupEmbedding, NodeEncoder
from gnn.model.heads import LOG_VAR_RANGE, GraphHead, PairAnswers, PairHead, class_shares
from gnn.model.kept import Keeping
from gnn.model.kernel_vectors import kernel_descriptors
from gnn.model.layers import Described, MessageRound, RoundShape, gat_round, own_round, parameter_key, sage_round
from gnn.model.outputs import Outputs
from gnn.model.readout import (
    MASKED_LOGIT,
    graph_logsumexp,
    graph_readout,
    masked,
    pair_log_weights,
    pair_probabilities,
    seed_readout,
)
from gnn.model.site import SiteScale, site_vectors, site_width
from gnn.model.small import SmallRounds, is_small
from gnn.model.states import States
from schemas.configuration import ModelConfig
from schemas.features import NODE_TYPES, PARAMETER, RELATIONS

READ_BY_HEADS: Final = ("layer", "seed", "blueprint", "context")


@dataclass(frozen=True)
class Read:
    """The heads' inputs: `seeds` [S, W], site vectors joined with the states after the rounds, and `graphs` [G, 2 * out]."""

    seeds: Tensor
    graphs: Tensor


class TamiyoGNN(Keeping):
    """The policy network; all dimensions follow from `schemas.features` and `ModelConfig`, none is lazy.

    The outputs of several heads are averaged, so one network is an ensemble: see `PairHead`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleDict({node.name: NodeEncoder(node, config) for node in NODE_TYPES})
        self.edges = nn.ModuleDict(
            {parameter_key(r.triple): GroupEmbedding(r, config) for r in RELATIONS} if config.messages else {}
        )
        self.rounds = nn.ModuleList(self._rounds())
        self.site_scale = SiteScale()
        self.state_norm = nn.LayerNorm(2 * config.out, elementwise_affine=False)
        self.pair_head = PairHead(site_width() + 2 * config.out, config)
        self.graph_head = GraphHead(config)
        self.blueprint_head = nn.Linear(config.out, 1)
        self._initialise()

    def round_shapes(self) -> list[RoundShape]:
        """Return the shapes of the rounds, in order."""
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

    def fit_inputs(self, batch: GraphBatch, kernels: Tensor | None = None) -> None:
        """Fit the scales of all input channels on the graphs of `batch` (training hosts only).

        `kernels` float32 [32, 24] are the kernels' descriptors; None takes those that need no records.
        """
        for name, encoder in self.encoders.items():
            cast(NodeEncoder, encoder).embedding.scale.fit(batch.x[name])
        for relation in RELATIONS if self.config.messages else ():
            embedding = cast(GroupEmbedding, self.edges[parameter_key(relation.triple)])
            embedding.scale.fit(batch.edge_attr[relation.triple])
        self.site_scale.fit(site_vectors(batch))
        self.pair_head.descriptors.copy_(kernel_descriptors() if kernels is None else kernels)

    def shared(self) -> list[nn.Module]:
        """Return the modules below the heads."""
        return [self.encoders, self.edges, self.rounds]

    def forward(self, batch: GraphBatch, kernel_mask: Tensor | None = None) -> Outputs:
        """Return the outputs of `batch`; `kernel_mask` bool [S, 32] is true if a seed may take a kernel (all if None)."""
        state = self.states(batch)
        read = self._read(batch, state)
        pairs: PairAnswers = self.pair_head(read.seeds).mean()
        logits = masked(pairs.logits, kernel_mask)
        return Outputs(
            **self.graph_head(read.graphs),
            **_from_seeds(batch, pairs, logits),
            compile_embedding=self._compile_embedding(batch),
            seed_policy_logits=logits,
            seed_value=pairs.value,
            seed_value_log_var=pairs.log_var,
            seed_risk_logits=pairs.risk,
            seed_scores=pairs.scores,
            blueprint_scores=self.blueprint_head(state["blueprint"]).squeeze(1),
        )

    def read(self, batch: GraphBatch) -> Read:
        """Return the heads' inputs for `batch`."""
        return self._read(batch, self.states(batch))

    def _read(self, batch: GraphBatch, state: States) -> Read:
        sites = self.site_scale(site_vectors(batch))
        seeds = torch.cat([sites, self.state_norm(seed_readout(state, batch))], 1)
        return Read(seeds, graph_readout(state, batch))

    def states(self, batch: GraphBatch) -> States:
        """Return the node states after the last round: {node type: [N, out]}."""
        small = self.kept(self._small_rounds, wanted=self.config.messages and is_small(batch))
        if small is not None:
            return small(batch)
        states = States({n.name: self.encoders[n.name](batch.x[n.name], batch.ids[n.name]) for n in NODE_TYPES})
        described = Described.of(batch, self.attributes(batch)) if self.config.messages else None
        for messages in self.rounds:
            states = messages(states, batch, described)
        return states

    def _small_rounds(self) -> SmallRounds:
        edges = {r.triple: cast(GroupEmbedding, self.edges[parameter_key(r.triple)]) for r in RELATIONS}
        rounds = [cast(MessageRound, one) for one in self.rounds]
        return SmallRounds({n: cast(NodeEncoder, e) for n, e in self.encoders.items()}, edges, rounds, self.round_shapes())

    def attributes(self, batch: GraphBatch) -> dict[Triple, Tensor]:
        """Return the embedded edge attributes by forward relation: [E, edge width]."""
        return {
            r.triple: self.edges[parameter_key(r.triple)](batch.edge_attr[r.triple], batch.edge_ids[r.triple])
            for r in RELATIONS
        }

    def _compile_embedding(self, batch: GraphBatch) -> Tensor:
        """Return each graph's mean over its parameter groups of the blueprint's embedded compile state: [G, 16]."""
        column = [feature.name for feature in PARAMETER.categorical].index(COMPILE_STATUS)
        table = cast(NodeEncoder, self.encoders["parameter"]).embedding.tables[COMPILE_STATUS]
        embedded = table(batch.ids["parameter"][:, column])
        return batch.graphs_of("parameter").mean(embedded)


def _from_seeds(batch: GraphBatch, pairs: PairAnswers, logits: Tensor) -> dict[str, Tensor]:
    """Return the policy, value and risk of each graph as the expectation over its pairs.

    A graph without pairs to choose from gets the outputs of a no-op: value 0 with the least variance, and no harm.
    """
    seeds, weights = batch.graphs_of("seed"), pair_log_weights(pairs.scores, logits)
    policy = graph_logsumexp(weights, seeds)
    share = pair_probabilities(weights, seeds, policy)
    chosen = seeds.sum(share.sum(1, keepdim=True)) > 0
    mean = seeds.sum((share * pairs.value).sum(1, keepdim=True))
    middle = seeds.sum((share * pairs.log_var).sum(1, keepdim=True))
    # the variance over exp(middle), less 1, because a logarithm of numbers near 1 would keep few digits
    spread = torch.expm1(pairs.log_var - seeds.spread(middle))
    spread = spread + (pairs.value - seeds.spread(mean)) ** 2 * torch.exp(-seeds.spread(middle))
    log_var = middle + torch.log1p(seeds.sum((share * spread).sum(1, keepdim=True)))
    classes = seeds.sum((share.unsqueeze(2) * class_shares(pairs.risk)).sum(1))
    risk = torch.log(classes.clamp(min=1e-12))
    harmless = torch.full_like(risk, MASKED_LOGIT).index_fill(1, torch.zeros(1, dtype=torch.int64, device=risk.device), 0.0)
    return {
        "policy_logits": policy,
        "value": torch.where(chosen, mean, 0.0),
        "value_log_var": torch.where(chosen, log_var, LOG_VAR_RANGE[0]),
        "risk_logits": torch.where(chosen, risk, harmless),
    }
