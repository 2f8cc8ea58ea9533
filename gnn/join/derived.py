"""Derive values from several measurements: `Feature.derive` names a function of this module.

The definitions are those of features.md. Arrays that describe a table's rows have one extra row at the end, which stands for
"no row" (see `gnn.join.rows`).
"""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gnn.join.asof import AsOf
from gnn.join.columns import Mix
from gnn.join.packets import first_finite, log_ratio
from gnn.join.rows import Floats, Ints, Labels, Lists, Rows, lengths
from gnn.join.sites import Sites

INSTABILITY: Final = ("vanishing", "stable", "noisy", "exploding")
CONSERVATIVE: Final = "tamiyo.conservative_mode"


def gradient_instability(norm: Floats, variance: Floats, mean: Floats, earlier: Ints) -> Labels:
    """Classify each layer's gradient by its norm and variance (float64 [N], NaN missing).

    With r = norm / (the run's EWMA mean of gradient_norm before the packet, `mean`) and cv = sqrt(variance) / norm:
    exploding if r > 10, vanishing if r < 0.1, else noisy if cv is known and > 1, else stable. It is missing if the norm is,
    and until the run has an earlier gradient_norm (`earlier` int64 [N] counts them).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = norm / mean
        variation = np.sqrt(variance) / norm
    codes = np.select([ratio > 10.0, ratio < 0.1, variation > 1.0], [3, 0, 2], default=1).astype(np.int64)
    return Labels(np.where(np.isfinite(norm) & (earlier > 0), codes, -1), INSTABILITY)


def latency_budget_utilisation(latency_ms: Floats, budget_ms: Floats) -> Floats:
    """Divide hook_latency_ms by latency_budget_ms, float64 [N]; missing if either is, or if the budget is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = latency_ms / budget_ms
    return np.where(np.isfinite(share), share, np.nan)


def rolling_loss(loss: Floats, mean: Floats, earlier: Ints) -> Floats:
    """Return the run's EWMA mean of loss before each packet, float64 [N].

    At the run's first measured loss it is that loss; before, it is missing. `earlier` int64 [N] counts the earlier losses.
    """
    return np.where(earlier > 0, mean, first_finite(loss))


def generalisation_gap(validation: Floats, training: Floats) -> Floats:
    """Return ln(validation loss / training loss), float64 [N]; missing unless both are above 0."""
    return log_ratio(validation, training)


def loss_change(loss: Floats, before: Floats) -> Floats:
    """Return ln(x / x of the run's packet before), float64 [N]; missing for the first one, and unless both are above 0."""
    return log_ratio(loss, before)


def training_loss(sent: Floats, metric: Floats) -> Floats:
    """Return the training loss that each packet sends, else its step metric `loss`; all float64 [N]."""
    return first_finite(sent, metric)


def output_classes(channels: Floats, positions: Ints, ptr: Ints) -> Floats:
    """Return the output_channels of the last layer of each graph, float64 [N].

    `channels` float64 and topological `positions` int64 are by layer; `ptr` int64 [N + 1] bounds the layers of each graph.
    """
    counts = lengths(ptr)
    last = np.flatnonzero(positions + 1 == counts.repeat(counts))
    found = np.full(len(counts), np.nan)
    found[counts > 0] = channels[last]
    return found


def layer_type_shares(types: Labels, ptr: Ints) -> Mix:
    """Return the layer types (labels [layers]) of each graph; `ptr` int64 [N + 1] bounds its layers."""
    return Mix(types, ptr)


def relative_depth(sites: Sites) -> Floats:
    """Return the mean topological position of each seed's monitored layers, divided by the number of layers, float64 [N].

    It is missing if the seed monitors no layer.
    """
    return sites.depth


def sites_before(sites: Sites) -> Floats:
    """Count the seeds of the graph with a smaller relative depth, float64 [N]; missing without a depth."""
    return sites.before


def sites_after(sites: Sites) -> Floats:
    """Count the seeds of the graph with a greater relative depth, float64 [N]; missing without a depth."""
    return sites.after


def is_first(sites: Sites) -> Floats:
    """Return 1 if no seed of the graph has a smaller relative depth, else 0, float64 [N]; missing without a depth."""
    return np.where(np.isfinite(sites.before), (sites.before == 0.0).astype(np.float64), np.nan)


def is_last(sites: Sites) -> Floats:
    """Return 1 if no seed of the graph has a greater relative depth, else 0, float64 [N]; missing without a depth."""
    return np.where(np.isfinite(sites.after), (sites.after == 0.0).astype(np.float64), np.nan)


def has_norm(sites: Sites, types: Labels) -> Floats:
    """Return 1 if a normalization layer is among the monitored layers, else 0, float64 [N]; missing if none has a type.

    `types` [layers] are the layers' types; those with `norm` in their name are normalization layers.
    """
    norms = np.array([*("norm" in word.lower() for word in types.words), False], dtype=np.bool_)
    return sites.any_of(norms[types.codes], types.codes >= 0)


def site_channels(sites: Sites, channels: Floats) -> Floats:
    """Return the output_channels (float64 [layers]) of the last layer that each seed monitors, float64 [N]."""
    return np.append(channels, np.nan)[sites.last]


def monitoring_scope(monitored: Lists, seed: Ints) -> Floats:
    """Count the monitored layers of each seed, float64 [N]; missing if no list was sent. `seed` int64 [N] are rows."""
    return np.where(monitored.known, lengths(monitored.ptr), np.nan)[seed]


def has_handling_notes(recommendation: Labels, sheet: Ints) -> Floats:
    """Return 1 if a sheet has a recommendation, 0 if not, float64 [N]; missing without a sheet (`sheet` int64 [N] is -1)."""
    return np.where(sheet >= 0, (recommendation.codes[sheet] >= 0).astype(np.float64), np.nan)


def adaptation_trigger_threshold(own: Floats, noted: Floats) -> Floats:
    """Return each seed's own threshold, else the one that its host's blueprint states for it, float64 [N]."""
    return first_finite(own, noted)


def conservative_mode(health: Rows, metrics: pa.Table) -> tuple[AsOf, Floats]:
    """Merge the statements of conservative mode in Weatherlight's health and Tamiyo's metric over time.

    Returns an index over time with one group (0), and the mode of each of its rows: 1 or 0, and NaN for the last, "no row".
    The newest statement of either source counts; of two at the same time, the cautious one.
    """
    said = Rows(metrics.filter(pc.equal(metrics.column("name"), CONSERVATIVE)))
    times = np.concatenate([health.times("timestamp_ns"), said.times("timestamp_ns")])
    values = np.concatenate([health.numbers("conservative_mode")[:-1], said.numbers("value")[:-1]])
    known = np.isfinite(values)
    modes = np.append((values != 0.0).astype(np.float64), np.nan)
    return AsOf(np.where(known, 0, -1), times, modes[:-1].astype(np.int64)), modes
