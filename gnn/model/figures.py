"""Compute figures of value, risk and labels from arrays; those with an interval are functions of sums over rows."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from gnn.model.targets import Floats, Ints

BINS = 15


def r2_sums(value: Floats, u: Floats) -> Floats:
    """Return the columns [P, 4] whose sums `r2_of` takes."""
    return np.stack([np.ones_like(u), u, u**2, (u - value) ** 2], 1)


def r2_of(sums: Floats) -> Floats:
    """Return 1 - residual / total sum of squares about the mean; NaN if u does not vary."""
    total = sums[..., 2] - sums[..., 1] ** 2 / np.where(sums[..., 0] == 0, np.nan, sums[..., 0])
    found: Floats = 1.0 - sums[..., 3] / np.where(total > 1e-12, total, np.nan)
    return found


def f1_sums(guess: Ints, classes: Ints, count: int) -> Floats:
    """Return the columns [P, 3 x count] whose sums `macro_f1_of` takes: hits, guesses and occurrences of each class."""
    eye = np.eye(count)
    return np.concatenate([eye[guess] * (guess == classes)[:, None], eye[guess], eye[classes]], 1)


def macro_f1_of(sums: Floats) -> Floats:
    """Return the mean F1 over the classes that occur."""
    hit, guessed, occurred = np.split(np.asarray(sums), 3, axis=-1)
    score = 2 * hit / np.where(guessed + occurred == 0, 1.0, guessed + occurred)
    present = occurred > 0
    found: Floats = (score * present).sum(-1) / np.where(present.any(-1), present.sum(-1), np.nan)
    return found


def ece_sums(probabilities: Floats, classes: Ints) -> Floats:
    """Return the columns [P, 16] whose sums `ece_of` takes: confidence minus hit by bin of confidence (15 bins), and 1."""
    top, hit = probabilities.max(1), probabilities.argmax(1) == classes
    return np.concatenate([np.eye(BINS)[bin_of(top)] * (top - hit)[:, None], np.ones((len(top), 1))], 1)


def ece_of(sums: Floats) -> Floats:
    """Return the expected calibration error: sum over bins of count x |confidence - accuracy|, divided by the total count."""
    found: Floats = np.abs(sums[..., :BINS]).sum(-1) / np.where(sums[..., BINS] == 0, np.nan, sums[..., BINS])
    return found


def bin_of(confidence: Floats) -> Ints:
    """Return the bin of each confidence, 0..14."""
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def reliability(probabilities: Floats, classes: Ints) -> list[tuple[float, float, int]]:
    """Return (confidence, accuracy, count) of 15 equal bins of the top class's probability; NaN figures in empty bins."""
    top, hit = probabilities.max(1), probabilities.argmax(1) == classes
    place = bin_of(top)
    rows = []
    for number in range(BINS):
        inside = place == number
        count = int(inside.sum())
        nan = float("nan")
        rows.append((float(top[inside].mean()), float(hit[inside].mean()), count) if count else (nan, nan, 0))
    return rows


def brier(probabilities: Floats, classes: Ints) -> Floats:
    """Return the squared distance of each row of probabilities [P, C] from its one-hot class: [P]."""
    found: Floats = ((probabilities - np.eye(probabilities.shape[1])[classes]) ** 2).sum(1)
    return found


def auroc(score: Floats, positive: NDArray[np.bool_], weights: Floats | None = None) -> Floats:
    """Return the area under the ROC curve [...], rows weighted by `weights` [..., P] (1 if None); NaN if a class has none."""
    weight = np.ones(len(score)) if weights is None else weights
    _, level = np.unique(score, return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.diff(level[order], prepend=-1))

    def by_level(chosen: NDArray[np.bool_]) -> Floats:
        kept = (weight * chosen)[..., order]
        return np.add.reduceat(kept, starts, axis=-1) if len(starts) else kept

    good, bad = by_level(positive), by_level(~positive)
    below = np.cumsum(bad, axis=-1) - bad / 2
    pairs = good.sum(-1) * bad.sum(-1)
    found: Floats = (good * below).sum(-1) / np.where(pairs > 0, pairs, np.nan)
    return found


def probabilities(logits: Floats) -> Floats:
    """Return softmax(logits) along the last axis."""
    shares: Floats = softmax(logits, axis=-1)
    return shares


def replicate_reliability(first: Floats, second: Floats) -> float:
    """Return the reliability of the mean of two replicates: 2r / (1 + r), with r their correlation (Spearman-Brown)."""
    known = np.isfinite(first) & np.isfinite(second)
    if known.sum() < 3 or np.ptp(first[known]) == 0 or np.ptp(second[known]) == 0:
        return float("nan")
    r = float(np.corrcoef(first[known], second[known])[0, 1])
    return 2 * r / (1 + r) if r > -1 else float("nan")
