"""Compute what a model chooses in each state, and what it gains and risks by it; definitions are those of `model.md`."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gnn.model.targets import Floats, Ints

REWARD_CLIP: Final = 0.25  # nats: so that no single diverging host dominates a figure
LEAST_ROOM: Final = 0.01  # nats between a state's mean and best pair; with less, its share of gap closed is not meaningful

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Choices:
    """The choices in N states with two measured pairs or more; rewards in nats of loss.

    `row`: first row of the state. `chosen`: reward of the pair with the highest score. `random`: mean reward of the state's
    pairs. `best`: highest reward. `done`: reward of what the policy does, zero for a no-op. `acts`: whether it grafts. `harm`:
    whether it grafts and the outcome is harmful. Of pairs with an equal highest score, the mean counts.
    """

    row: Ints
    chosen: Floats
    random: Floats
    best: Floats
    done: Floats
    acts: Floats
    harm: Floats

    @property
    def room(self) -> Floats:
        """Best minus random reward."""
        return self.best - self.random

    @property
    def gain(self) -> Floats:
        """Chosen minus random reward."""
        return self.chosen - self.random

    @property
    def shares(self) -> tuple[Floats, Floats]:
        """The share of its room that each state's choice closes, clipped at -1, and which states have room (1 or 0)."""
        wide = self.room > LEAST_ROOM
        share = np.divide(self.gain, self.room, out=np.zeros_like(self.room), where=wide)
        return np.where(wide, np.maximum(share, -1.0), 0.0), wide.astype(float)


def choices(score: Floats, reward: Floats, state: Ints, grafts: Bools | None = None, harmful: Bools | None = None) -> Choices:
    """Take the pair with the highest `score` [P] in each state; rewards that are NaN are left out.

    `grafts` bool [P]: whether the policy would graft the pair if it chose it (all if None). `harmful` bool [P]: whether the
    pair's outcome was harmful (none if None).
    """
    rows = np.flatnonzero(np.isfinite(reward))
    score, reward, state = score[rows], reward[rows], state[rows]
    does = np.ones(len(rows)) if grafts is None else grafts[rows].astype(float)
    bad = np.zeros(len(rows)) if harmful is None else harmful[rows].astype(float)
    names, first, inverse, counts = np.unique(state, return_index=True, return_inverse=True, return_counts=True)
    size = len(names)
    top, best = np.full(size, -np.inf), np.full(size, -np.inf)
    np.maximum.at(top, inverse, score)
    np.maximum.at(best, inverse, reward)
    taken = (score == top[inverse]).astype(float)
    taken /= np.maximum(np.bincount(inverse, taken, size), 1.0)[inverse]

    def total(values: Floats) -> Floats:
        return np.bincount(inverse, values, size).astype(float)

    kept = counts > 1
    each = {
        "chosen": total(taken * reward),
        "random": total(reward) / np.maximum(counts, 1),
        "best": best,
        "done": total(taken * does * reward),
        "acts": total(taken * does),
        "harm": total(taken * does * bad),
    }
    return Choices(row=rows[first][kept], **{name: values[kept] for name, values in each.items()})


def gap_closed(found: Choices) -> float:
    """Return (chosen - random) / (best - random), each summed over states; NaN if no state leaves a choice."""
    room = float(found.room.sum())
    return float(found.gain.sum()) / room if room > 0 else float("nan")


def replicate_ceiling(u: tuple[Floats, Floats], test: tuple[Floats, Floats], state: Ints) -> float:
    """Return the gap closed by choosing with one replicate's u [P] and judging by the other's reward on test data, both ways.

    Pairs without both replicates are left out. It is NaN if no state has two pairs with both.
    """
    both = np.isfinite(u[0]) & np.isfinite(u[1]) & np.isfinite(test[0]) & np.isfinite(test[1])
    gain = room = 0.0
    for one, other in ((0, 1), (1, 0)):
        reward = np.clip(test[other][both], -REWARD_CLIP, REWARD_CLIP)
        found = choices(u[one][both], reward, state[both])
        gain, room = gain + float(found.gain.sum()), room + float(found.room.sum())
    return gain / room if room > 0 else float("nan")


def rank_correlations(score: Floats, reward: Floats, state: Ints) -> tuple[Ints, Floats]:
    """Return the first row and rank correlation of each state with three measured pairs or more whose rewards differ.

    A constant score has correlation 0.
    """
    rows = np.flatnonzero(np.isfinite(reward))
    _, first, inverse, counts = np.unique(state[rows], return_index=True, return_inverse=True, return_counts=True)
    ranks = [_ranks(values[rows], inverse) - (counts[inverse] + 1) / 2 for values in (score, reward)]

    def dot(a: Floats, b: Floats) -> Floats:
        return np.bincount(inverse, a * b, len(counts)).astype(float)

    spread = dot(ranks[0], ranks[0]) * dot(ranks[1], ranks[1])
    found = np.divide(dot(*ranks), np.sqrt(spread), out=np.zeros(len(counts)), where=spread > 0)
    kept = (counts > 2) & (dot(ranks[1], ranks[1]) > 0)
    return rows[first][kept], found[kept]


def _ranks(values: Floats, group: Ints) -> Floats:
    """Return ranks from 1 within each group; equal values get their mean rank."""
    order = np.lexsort((values, group))
    ordered, groups = values[order], group[order]
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]) | (groups[1:] != groups[:-1])
    place = np.arange(len(order)) - np.searchsorted(groups, groups) + 1.0
    tie = np.cumsum(fresh) - 1
    found = np.empty(len(order))
    found[order] = (np.bincount(tie, place) / np.bincount(tie))[tie] if len(order) else place
    return found
