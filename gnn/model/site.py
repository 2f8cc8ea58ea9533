"""Compute site vectors: the features of one seed, of the layers that it monitors and of its graph, as one flat row.

The heads read them beside the seed's state after the rounds; the baselines read nothing else. Training, evaluation and
serving all compute them from a scaled batch with the same function.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gnn.graph.batch import GraphBatch, GraphStore
from gnn.model.targets import Floats, Labels
from schemas.features import CONTEXT, LAYER, SEED

CLIP: Final = 4.0  # standard deviations
LEAST_SPREAD: Final = 1e-3  # a channel with a smaller standard deviation on training hosts gets gain zero
INDICATORS: Final = 24  # ids from the last one up share it
MONITORED_IDS: Final = ("layer_type", "activation_type")
COUNTED: Final = ("layer", "seed", "parameter")  # node types whose number in the graph is a channel
MONITORS: Final = ("seed", "monitors", "layer")
_TYPE_COLUMNS: Final = [[feature.name for feature in LAYER.categorical].index(name) for name in MONITORED_IDS]


def site_width() -> int:
    """Return the number of channels of a site vector, which follows from the feature declaration."""
    return SEED.width + LAYER.width + INDICATORS * len(MONITORED_IDS) + CONTEXT.width + len(COUNTED)


def site_vectors(batch: GraphBatch) -> Tensor:
    """Return one row per seed of the scaled batch: float32 [S, `site_width()`], as sign(x) log1p(|x|).

    A row holds, in order: the seed; the mean of the layers that it monitors; the types of the first of these layers as
    indicators; the context and the node counts of its graph. Channels are values and masks in declared order, zero if absent.
    """
    layers = batch.edge_index[MONITORS][1]
    first = batch.follows("first monitored", lambda: _first_monitored(batch))
    counts = batch.follows("counts", lambda: torch.stack([batch.ptr[name].diff().float() for name in COUNTED], 1))
    whole = torch.cat([batch.graphs_of("context").mean(batch.x["context"]), counts], 1)
    monitored = batch.nodes_at(MONITORS).mean(batch.x["layer"].index_select(0, layers))
    ours = batch.graphs_of("seed").spread(whole).expand(batch.num_nodes("seed"), -1)
    return squash(torch.cat([batch.x["seed"], monitored, _types(batch, first), ours], 1))


def _first_monitored(batch: GraphBatch) -> Tensor:
    """Return the first layer that each seed monitors, or -1: int64 [S]."""
    seeds, layers = batch.edge_index[MONITORS]
    none: Tensor = layers.new_full((batch.num_nodes("seed"),), -1)
    return none.scatter_reduce(0, seeds, layers, "amin", include_self=False)


def squash(values: Tensor) -> Tensor:
    """Return sign(x) log1p(|x|), which is linear near zero and logarithmic far from it."""
    return torch.copysign(torch.log1p(values.abs()), values)


class SiteScale(nn.Module):
    """Z-scores of site vectors, clipped at 4; `center` and `gain` (float32 [W]) are fitted on training hosts.

    A channel that did not vary there has gain zero, so it can't change an output.
    """

    center: Tensor
    gain: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(site_width()))
        self.register_buffer("gain", torch.ones(site_width()))

    def forward(self, sites: Tensor) -> Tensor:
        """Scale `sites` (float32 [S, W]): [S, W] within ±4."""
        scaled: Tensor = ((sites - self.center) * self.gain).clamp(-CLIP, CLIP)
        return scaled

    @torch.no_grad()
    def fit(self, sites: Tensor) -> None:
        """Set `center` and `gain` from the site vectors of training hosts; if there are none, they stay as they are."""
        if not len(sites):
            return
        rows = sites.double()
        spread = rows.std(0, correction=0)
        self.center.copy_(rows.mean(0))
        self.gain.copy_(torch.where(spread < LEAST_SPREAD, 0.0, 1.0 / spread.clamp(min=LEAST_SPREAD)))


def flat_features(store: GraphStore, labels: Labels, batch_graphs: int) -> Floats:
    """Return one site vector per label: float64 [P, W]."""
    graphs = labels.graphs().tolist()
    rows: dict[int, Floats] = {}
    for start in range(0, len(graphs), batch_graphs):
        chunk = graphs[start : start + batch_graphs]
        batch = store.batch(chunk)
        sites, offsets = site_vectors(batch).double().numpy(), batch.ptr["seed"].tolist()
        rows |= {graph: sites[offsets[i] : offsets[i + 1]] for i, graph in enumerate(chunk)}
    picked = [rows[graph][seed] for graph, seed in zip(labels.graph.tolist(), labels.seed.tolist(), strict=True)]
    return np.stack(picked) if picked else np.zeros((0, site_width()))


def _types(batch: GraphBatch, layers: Tensor) -> Tensor:
    """Return the one-hot types of the layer rows [S]: float32 [S, INDICATORS per feature], zero if a row is -1."""
    ids = torch.stack([batch.ids["layer"][:, column] for column in _TYPE_COLUMNS], 1)
    padded = functional.pad(ids, (0, 0, 0, 1), value=-1)  # index -1 selects the appended row, which equals no indicator
    numbers = padded[layers].clamp(max=INDICATORS - 1).unsqueeze(2)
    return (numbers == torch.arange(INDICATORS, device=numbers.device)).flatten(1).float()
