"""Evaluate all compared models on the same rows, with paired intervals over hosts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gnn.model.bootstrap import Estimate, HostBootstrap
from gnn.model.calibration import Answers
from gnn.model.choices import REWARD_CLIP, choices, gap_closed, rank_correlations, replicate_ceiling
from gnn.model.decision import HARMFUL
from gnn.model.figures import auroc, brier, ece_of, ece_sums, f1_sums, macro_f1_of, r2_of, r2_sums
from gnn.model.targets import Floats, Labels
from schemas.configuration import RISK_CLASSES

RULES: Final = ("random", "no_op")
BASELINES: Final = ("no_messages", "ridge", "boosting", "gaussian_process", "best_constant", "best_grouped", *RULES)
MODELS: Final = ("model", *BASELINES)
DRAWS_AT_ONCE: Final = 100  # resamples whose row weights are held in memory

Figures = Mapping[str, Estimate]


@dataclass(frozen=True)
class Outcomes:
    """Labels with the columns that scoring needs.

    `reward` is the uplift on the hosts' test data, clipped to ±0.25 nats (see `reward_of`). `replicates` are the uplifts of
    two replicates, on validation data and on test data.
    """

    labels: Labels
    hosts: NDArray[np.str_]
    reward: Floats
    replicates: tuple[tuple[Floats, Floats], tuple[Floats, Floats]]
    data_set: NDArray[np.str_]
    architecture: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def harmful(self) -> NDArray[np.bool_]:
        """Whether the outcome was of high or critical risk."""
        return self.labels.risk >= HARMFUL

    @property
    def states(self) -> int:
        """The number of states with two measured pairs or more."""
        return len(choices(self.reward, self.reward, self.labels.graph).row)

    @property
    def ceiling(self) -> float:
        """The gap closed by choosing with one replicate and judging by another."""
        return replicate_ceiling(*self.replicates, self.labels.graph)


def outcomes_of(examples: pa.Table, labels: Labels) -> Outcomes:
    """Return `labels` with the columns that scoring needs."""
    rows = examples.take(labels.example)

    def text(name: str) -> NDArray[np.str_]:
        return np.array(pc.fill_null(rows[name], "unknown").to_pylist(), dtype=str)

    numbers = {n: rows[n].to_numpy() for n in ("u_first", "u_second", "u_test_first", "u_test_second")}
    replicates = ((numbers["u_first"], numbers["u_second"]), (numbers["u_test_first"], numbers["u_test_second"]))
    return Outcomes(labels, text("host"), reward_of(examples, rows), replicates, text("data_set"), text("architecture"))


def reward_of(examples: pa.Table, rows: pa.Table) -> Floats:
    """Return the reward of `rows` of `examples`: `u_test`, clipped; -0.25 for a graft that diverged.

    If no example has an uplift on test data, u replaces it; else a row without one has no reward (NaN).
    """
    column = "u_test" if rewarded_by_test(examples) else "u"
    reward: Floats = np.clip(rows[column].to_numpy().astype(np.float64), -REWARD_CLIP, REWARD_CLIP)
    critical = np.array([name == RISK_CLASSES[-1] for name in rows["risk_class"].to_pylist()], dtype=bool)
    diverged = np.isnan(rows["u"].to_numpy()) & critical
    reward[diverged & np.isnan(reward)] = -REWARD_CLIP
    return reward


def rewarded_by_test(examples: pa.Table) -> bool:
    """Return whether rewards are on test data: any example was measured on it."""
    return bool(examples["u_test"].null_count < examples.num_rows)


@dataclass(frozen=True)
class Gaps:
    """The model's lead over the best baseline, and that baseline's name; None without a model or a baseline."""

    best_baseline: str | None
    lead: Estimate | None


def evaluate(outcomes: Outcomes, answers: Mapping[str, Answers], boot: HostBootstrap) -> dict[str, dict[str, Estimate]]:
    """Return the figures of every model in `answers` and of the rules `random` and `no_op`, by model and figure name."""
    found = {name: _choice_figures(outcomes, each.score, each.grafts, boot) for name, each in answers.items()}
    equal, every = np.zeros(len(outcomes)), np.ones(len(outcomes), dtype=bool)
    found |= {"random": _choice_figures(outcomes, equal, every, boot, rule="random")}
    found |= {"no_op": _choice_figures(outcomes, equal, ~every, boot, rule="no_op")}
    for name, each in answers.items():
        found[name] |= _value_figures(outcomes, each, boot) | _risk_figures(outcomes, each, boot)
    return found


def gaps(figures: Mapping[str, Figures]) -> Gaps:
    """Compare the model with the baseline that closed the largest share of the gap."""
    closed = {name: each["gap_closed"] for name, each in figures.items()}
    baselines = [name for name in BASELINES if name in closed and np.isfinite(closed[name].mean)]
    if "model" not in closed or not baselines or not np.isfinite(closed["model"].mean):
        return Gaps(None, None)
    best = max(baselines, key=lambda name: closed[name].mean)
    return Gaps(best, closed["model"] - closed[best])


def by_group(outcomes: Outcomes, answers: Answers, groups: NDArray[np.str_]) -> dict[str, float]:
    """Return the gap closed within each group of states (an architecture, a data set)."""
    found = {}
    for name in np.unique(groups):
        rows = np.flatnonzero(groups == name)
        found[str(name)] = gap_closed(choices(answers.score[rows], outcomes.reward[rows], outcomes.labels.graph[rows]))
    return found


def _choice_figures(
    outcomes: Outcomes, score: Floats, grafts: NDArray[np.bool_], boot: HostBootstrap, *, rule: str = ""
) -> dict[str, Estimate]:
    made = choices(score, outcomes.reward, outcomes.labels.graph, grafts, outcomes.harmful)
    if rule:  # set exactly, without rounding errors
        made = replace(made, chosen=made.random if rule == "random" else np.zeros(len(made.row)))
    hosts = boot.places(outcomes.hosts)
    share, wide = made.shares
    own, each = hosts[made.row], np.ones(len(made.row))
    first, correlation = rank_correlations(score, outcomes.reward, outcomes.labels.graph)
    return {
        "gap_closed": boot.ratio(made.gain, made.room, own),
        "gap_closed_by_state": boot.ratio(share, wide, own),
        "benefit": boot.ratio(made.done, each, own),
        "harm_rate": boot.ratio(made.harm, made.acts, own),
        "within_state_spearman": boot.ratio(correlation, np.ones(len(first)), hosts[first]),
    }


def _value_figures(outcomes: Outcomes, answers: Answers, boot: HostBootstrap) -> dict[str, Estimate]:
    known = np.flatnonzero(np.isfinite(outcomes.labels.uplift))
    u, hosts = outcomes.labels.uplift[known], boot.places(outcomes.hosts[known])
    found = {"value_r2": boot.of_sums(r2_sums(answers.value[known], u), hosts, r2_of)}
    if np.isfinite(answers.low).any():
        inside = (u >= answers.low[known]) & (u <= answers.high[known])
        found["value_interval_coverage"] = boot.ratio(inside.astype(float), np.ones(len(known)), hosts)
    return found


def _risk_figures(outcomes: Outcomes, answers: Answers, boot: HostBootstrap) -> dict[str, Estimate]:
    if answers.risk_before is None or answers.risk_after is None:
        return {}
    seen = np.flatnonzero(outcomes.labels.risk >= 0)
    before, after, classes = answers.risk_before[seen], answers.risk_after[seen], outcomes.labels.risk[seen]
    hosts = boot.places(outcomes.hosts[seen])
    return {
        "risk_macro_f1": boot.of_sums(f1_sums(after.argmax(1), classes, len(RISK_CLASSES)), hosts, macro_f1_of),
        "risk_auroc": _auroc(after[:, 2:].sum(1), classes >= 2, hosts, boot),
        "risk_ece_before": boot.of_sums(ece_sums(before, classes), hosts, ece_of),
        "risk_ece_after": boot.of_sums(ece_sums(after, classes), hosts, ece_of),
        "risk_brier": boot.ratio(brier(after, classes), np.ones(len(seen)), hosts),
    }


def _auroc(score: Floats, positive: NDArray[np.bool_], hosts: NDArray[np.int64], boot: HostBootstrap) -> Estimate:
    """Estimate the AUROC of `score` (the predicted share of medium risk or worse) for `positive` rows."""
    draws = [auroc(score, positive, weights) for weights in boot.weights(hosts, DRAWS_AT_ONCE)]
    return Estimate(float(auroc(score, positive)), np.concatenate(draws) if draws else np.zeros(0))
