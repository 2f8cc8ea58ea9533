"""Figures of merit as pure functions of arrays; definitions are those of `model.md`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import rankdata

from gnn.model.targets import Floats, Ints

BINS = 15


@dataclass(frozen=True)
class StateGains:
    """Per state: the reward of the chosen pair, the mean reward of its measured pairs, and the best reward among them."""

    state: Ints
    chosen: Floats
    random: Floats
    oracle: Floats


def state_gains(logit: Floats, reward: Floats, state: Ints) -> StateGains:
    """Gains of taking the pair with the highest `logit` in each state with at least two measured pairs.

    Pairs of equal logit are taken at random (their mean reward counts). Rewards that are NaN are left out.
    """
    known = np.isfinite(reward)
    logit, reward, state = logit[known], reward[known], state[known]
    names, inverse, counts = np.unique(state, return_inverse=True, return_counts=True)
    top = np.full(len(names), -np.inf)
    np.maximum.at(top, inverse, logit)
    taken = (logit == top[inverse]).astype(float)
    chosen = np.bincount(inverse, weights=taken * reward, minlength=len(names)) / np.maximum(
        np.bincount(inverse, weights=taken, minlength=len(names)), 1.0
    )
    oracle = np.full(len(names), -np.inf)
    np.maximum.at(oracle, inverse, reward)
    mean = np.bincount(inverse, weights=reward, minlength=len(names)) / np.maximum(counts, 1)
    kept = counts > 1
    return StateGains(names[kept], chosen[kept], mean[kept], oracle[kept])


def gap_closed(gains: StateGains) -> float:
    """(chosen - random) / (oracle - random), summed over states; NaN where no state leaves a choice."""
    room = float((gains.oracle - gains.random).sum())
    return float((gains.chosen - gains.random).sum()) / room if room > 0 else float("nan")


def within_state_spearman(score: Floats, reward: Floats, state: Ints) -> float:
    """Mean over states with at least three measured pairs of the rank correlation; a constant score correlates by 0."""
    known = np.isfinite(reward)
    score, reward, state = score[known], reward[known], state[known]
    found = []
    for name in np.unique(state):
        rows = state == name
        if rows.sum() >= 3 and np.ptp(reward[rows]) > 0:
            a, b = rankdata(score[rows]), rankdata(reward[rows])
            found.append(float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 else 0.0)
    return float(np.mean(found)) if found else float("nan")


def r2(value: Floats, u: Floats) -> float:
    """1 - residual / total sum of squares about the mean; NaN where u does not vary."""
    total = float(((u - u.mean()) ** 2).sum()) if len(u) else 0.0
    return 1.0 - float(((u - value) ** 2).sum()) / total if total > 0 else float("nan")


def interval_coverage(low: Floats, high: Floats, u: Floats) -> float:
    """Share of u within [low, high]."""
    return float(((u >= low) & (u <= high)).mean()) if len(u) else float("nan")


def macro_f1(logits: Floats, classes: Ints) -> float:
    """Mean F1 over the classes that occur among `classes`."""
    guess = logits.argmax(1) if len(logits) else np.zeros(0, dtype=np.int64)
    scores = []
    for name in np.unique(classes):
        hit = float(((guess == name) & (classes == name)).sum())
        scores.append(2 * hit / float((guess == name).sum() + (classes == name).sum()))
    return float(np.mean(scores)) if scores else float("nan")


def auroc(score: Floats, positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve by ranks; NaN where only one class occurs."""
    many, few = int(positive.sum()), int((~positive).sum())
    if many == 0 or few == 0:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[positive].sum() - many * (many + 1) / 2) / (many * few))


def brier(probabilities: Floats, classes: Ints) -> float:
    """Mean over examples of the squared distance between probabilities [P, C] and the one-hot class."""
    if not len(classes):
        return float("nan")
    target = np.eye(probabilities.shape[1])[classes]
    return float(((probabilities - target) ** 2).sum(1).mean())


def reliability(probabilities: Floats, classes: Ints) -> list[tuple[float, float, int]]:
    """(confidence, accuracy, count) of each of 15 equal bins of the top class's probability; NaN figures in empty bins."""
    top, hit = probabilities.max(1), probabilities.argmax(1) == classes
    place = np.minimum((top * BINS).astype(int), BINS - 1)
    rows = []
    for number in range(BINS):
        inside = place == number
        count = int(inside.sum())
        nan = float("nan")
        rows.append((float(top[inside].mean()), float(hit[inside].mean()), count) if count else (nan, nan, 0))
    return rows


def ece(probabilities: Floats, classes: Ints) -> float:
    """Expected calibration error of the top class over 15 equal bins."""
    if not len(classes):
        return float("nan")
    rows = [row for row in reliability(probabilities, classes) if row[2]]
    return sum(count * abs(confidence - accuracy) for confidence, accuracy, count in rows) / len(classes)


def probabilities(logits: Floats, temperature: float = 1.0) -> Floats:
    """softmax(logits / temperature) along the last axis."""
    shares: Floats = softmax(logits / temperature, axis=-1)
    return shares


def replicate_reliability(first: Floats, second: Floats) -> float:
    """Reliability of the mean of two replicates: 2r / (1 + r), r their correlation (Spearman-Brown)."""
    known = np.isfinite(first) & np.isfinite(second)
    if known.sum() < 3 or np.ptp(first[known]) == 0 or np.ptp(second[known]) == 0:
        return float("nan")
    r = float(np.corrcoef(first[known], second[known])[0, 1])
    return 2 * r / (1 + r) if r > -1 else float("nan")
