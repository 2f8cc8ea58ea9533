"""Decide by one utility, made of each pair's value, policy and risk; the decision is a no-op if no pair is worth it.

Evaluation and serving decide only by these functions. The rule is tuned on predictions for hosts that the predicting network
never saw, and published with the bundle's calibration.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
from scipy.special import softmax
from torch import Tensor

from gnn.model.predictions import Predictions
from gnn.model.targets import Floats, Ints, Labels
from schemas.configuration import RISK_CLASSES

Numbers = TypeVar("Numbers", Floats, Tensor)

NO_OP: Final = -1
HARMFUL: Final = RISK_CLASSES.index("high")  # this class and the worse ones are harm
HARM_WEIGHTS: Final[tuple[float, ...]] = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


@dataclass(frozen=True)
class DecisionRule:
    """The decision rule: `policy_share` is the policy's share of the utility; the rest is the value's.

    One unit of a logit is worth `logit_scale` nats of uplift. Certain harm costs `harm_weight` nats of uplift. A pair is taken
    only if its utility is above `least`.
    """

    policy_share: float = 0.5
    logit_scale: float = 0.05
    harm_weight: float = 0.4
    least: float = 0.0


def utility(value: Numbers, logit: Numbers, harm: Numbers, rule: DecisionRule) -> Numbers:
    """Return the utility in nats of pairs with expected uplift `value`, joint `logit` and probability of harm `harm`."""
    share = rule.policy_share
    found: Numbers = (1.0 - share) * value + share * rule.logit_scale * logit - rule.harm_weight * harm
    return found


def decide(utilities: Floats, state: Ints, rule: DecisionRule) -> tuple[Ints, Ints]:
    """Return the states, ascending, and the row of each one's best pair, `NO_OP` if its utility is not above `rule.least`.

    Of pairs with equal utility the first is taken.
    """
    order = np.lexsort((np.arange(len(state)), -utilities, state))
    names, first = np.unique(state[order], return_index=True)
    best = order[first]
    return names, np.where(utilities[best] > rule.least, best, NO_OP)


@dataclass(frozen=True)
class Consequence:
    """The outcome of a rule on measured pairs: mean `reward` of a state, share of states with `harm`, share of `no_op`."""

    rule: DecisionRule
    reward: float
    harm: float
    no_op: float


@dataclass(frozen=True)
class Measured:
    """P measured pairs: their predictions (`value`, `logit`, `harm`) and outcomes.

    `reward` is the clipped uplift, `harmful` whether the outcome was of high or critical risk, `state` each pair's state.
    """

    value: Floats
    logit: Floats
    harm: Floats
    reward: Floats
    harmful: np.ndarray[tuple[int], np.dtype[np.bool_]]
    state: Ints

    def random_harm(self) -> float:
        """Return the share of states that a random measured pair harms; 0 without pairs."""
        sizes = np.unique(self.state, return_counts=True, return_inverse=True)[1:]
        return float(np.average(self.harmful, weights=1.0 / sizes[1][sizes[0]])) if len(self.state) else 0.0


def consequence(measured: Measured, rule: DecisionRule) -> Consequence:
    """Return the outcome of `rule` on those pairs; a no-op has reward 0 and no harm. Figures are NaN without pairs."""
    if not len(measured.state):
        return Consequence(rule, float("nan"), float("nan"), float("nan"))
    _, chosen = decide(utility(measured.value, measured.logit, measured.harm, rule), measured.state, rule)
    taken = chosen != NO_OP
    reward = np.where(taken, measured.reward[chosen], 0.0)
    harm = taken & measured.harmful[chosen]
    return Consequence(rule, float(reward.mean()), float(harm.mean()), float(1.0 - taken.mean()))


def trade_off(measured: Measured, rule: DecisionRule, weights: Sequence[float] = HARM_WEIGHTS) -> list[Consequence]:
    """Return the outcome of `rule` with each harm weight in place of its own."""
    return [consequence(measured, replace(rule, harm_weight=weight)) for weight in weights]


def tune(measured: Measured, rule: DecisionRule, weights: Sequence[float] = HARM_WEIGHTS) -> DecisionRule:
    """Return the rule with the harm weight of highest reward among those that harm no more than a random choice does.

    If all harm more, take the one with the least harm; of equals, the smaller weight. Without pairs, return `rule` unchanged.
    """
    if not len(measured.state):
        return rule
    found, bound = trade_off(measured, rule, weights), measured.random_harm()
    safe = [each for each in found if each.harm <= bound]
    if safe:
        return max(safe, key=lambda each: (each.reward, -each.rule.harm_weight)).rule
    return min(found, key=lambda each: (each.harm, each.rule.harm_weight)).rule


def tuned_on(predictions: Predictions, labels: Labels, temperature: float, clip: float, rule: DecisionRule) -> DecisionRule:
    """Return `rule` with its harm weight tuned on predictions for hosts that were not trained on.

    Uplifts are clipped at `clip`. If the model predicts no risk, the harm weight is zero.
    """
    if predictions.risk_logits is None:
        return replace(rule, harm_weight=0.0)
    known = np.flatnonzero(np.isfinite(labels.uplift) | (labels.risk >= HARMFUL))
    shares = softmax(predictions.risk_logits[known] / temperature, axis=1)
    measured = Measured(
        value=predictions.value[known],
        logit=predictions.logit[known],
        harm=shares[:, HARMFUL:].sum(1),
        reward=np.nan_to_num(labels.uplift[known], nan=-clip).clip(-clip, clip),
        harmful=labels.risk[known] >= HARMFUL,
        state=labels.graph[known],
    )
    return tune(measured, rule)
