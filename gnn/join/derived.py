"""Values that are derived from several measurements: `Feature.derive` names a function of this module.

Every definition is the one of features.md. Arrays that describe a table's rows have one row more, which stands for "no row"
(see `gnn.join.rows`).
"""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gnn.join.asof import AsOf
from gnn.join.packets import first_finite
from gnn.join.rows import Floats, Ints, Labels, Lists, Rows, lengths

INSTABILITY: Final = ("vanishing", "stable", "noisy", "exploding")
CONSERVATIVE: Final = "tamiyo.conservative_mode"


def gradient_instability(norm: Floats, variance: Floats, mean: Floats, earlier: Ints) -> Labels:
    """Classify each layer's gradient by its norm and variance (float64 [N], NaN missing).

    With r = norm / (the run's EWMA mean of gradient_norm before the packet, `mean`) and cv = sqrt(variance) / norm:
    exploding where r > 10, vanishing where r < 0.1, else noisy where cv > 1 is known, else stable. Missing where the norm
    is, and until the run has an earlier gradient_norm (`earlier` int64 [N] counts them).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = norm / mean
        variation = np.sqrt(variance) / norm
    codes = np.select([ratio > 10.0, ratio < 0.1, variation > 1.0], [3, 0, 2], default=1).astype(np.int64)
    return Labels(np.where(np.isfinite(norm) & (earlier > 0), codes, -1), INSTABILITY)


def latency_budget_utilisation(latency_ms: Floats, budget_ms: Floats) -> Floats:
    """Divide hook_latency_ms by latency_budget_ms, float64 [N]; missing where either is, or where the budget is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = latency_ms / budget_ms
    return np.where(np.isfinite(share), share, np.nan)


def rolling_loss(loss: Floats, mean: Floats, earlier: Ints) -> Floats:
    """Return the run's EWMA mean of loss before each packet, float64 [N].

    At the run's first measured loss it is that loss, before it missing; `earlier` int64 [N] counts the losses before.
    """
    return np.where(earlier > 0, mean, first_finite(loss))


def monitoring_scope(monitored: Lists, seed: Ints) -> Floats:
    """Count the monitored layers of each seed, float64 [N]; missing where no list was sent. `seed` int64 [N] are rows."""
    return np.where(monitored.known, lengths(monitored.ptr), np.nan)[seed]


def has_handling_notes(recommendation: Labels, sheet: Ints) -> Floats:
    """1 where a sheet has a recommendation, 0 where it has none, float64 [N]; missing without a sheet (`sheet` int64 [N])."""
    return np.where(sheet >= 0, (recommendation.codes[sheet] >= 0).astype(np.float64), np.nan)


def adaptation_trigger_threshold(own: Floats, noted: Floats) -> Floats:
    """Return the seed's own threshold, else the one that its host's blueprint has for it, float64 [N]."""
    return first_finite(own, noted)


def conservative_mode(health: Rows, metrics: pa.Table) -> tuple[AsOf, Floats]:
    """Merge what Weatherlight's health and Tamiyo's metric say of conservative mode over time.

    Returns an index of one group (0) over time, and the mode of each of its rows (1, 0; the last, for no row, NaN): the newest
    statement of both counts, and of two at one time the cautious one.
    """
    said = Rows(metrics.filter(pc.equal(metrics.column("name"), CONSERVATIVE)))
    times = np.concatenate([health.times("timestamp_ns"), said.times("timestamp_ns")])
    values = np.concatenate([health.numbers("conservative_mode")[:-1], said.numbers("value")[:-1]])
    known = np.isfinite(values)
    modes = np.append((values != 0.0).astype(np.float64), np.nan)
    return AsOf(np.where(known, 0, -1), times, modes[:-1].astype(np.int64)), modes
