"""The decision rule: one utility, no-op where it is not worth it, and a weight of harm that is tuned, not guessed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gnn.model.decision import NO_OP, DecisionRule, Measured, consequence, decide, trade_off, tune, tuned_on, utility
from gnn.model.predictions import Predictions
from gnn.model.targets import Labels

RULE = DecisionRule(policy_share=0.5, logit_scale=0.05, harm_weight=0.2, least=0.0)


def measured(states: int = 300, pairs: int = 6, seed: int = 0) -> Measured:
    """Risky pairs look good: their value is overrated by what their harm costs."""
    draw = np.random.default_rng(seed)
    harm = draw.choice([0.02, 0.4], p=[0.9, 0.1], size=states * pairs)
    harmful = draw.random(states * pairs) < harm
    truth = draw.normal(0.0, 0.05, states * pairs)
    reward = np.where(harmful, -0.25, truth)
    value = truth + 0.06 * (harm > 0.1)
    return Measured(value, value / 0.05, harm, reward, harmful, np.repeat(np.arange(states), pairs))


def test_the_utility_by_hand() -> None:
    found = utility(np.array([0.1]), np.array([4.0]), np.array([0.5]), RULE)
    assert found[0] == pytest.approx(0.5 * 0.1 + 0.5 * 0.05 * 4.0 - 0.2 * 0.5)


def test_arrays_and_tensors_get_the_same_utility() -> None:
    parts = [np.random.default_rng(n).normal(size=50) for n in range(3)]
    tensors = [torch.from_numpy(part) for part in parts]
    assert np.array_equal(utility(*parts, RULE), utility(*tensors, RULE).numpy())


def test_the_best_pair_of_each_state_is_taken_or_none() -> None:
    states, rows = decide(np.array([0.1, 0.3, -0.2, -0.1, 0.3]), np.array([7, 7, 2, 2, 7]), RULE)
    assert states.tolist() == [2, 7]
    assert rows.tolist() == [NO_OP, 1]
    assert decide(np.array([-0.2, -0.1]), np.array([2, 2]), replace(RULE, least=-1.0))[1].tolist() == [1]


def test_harm_that_weighs_more_happens_less() -> None:
    found = trade_off(measured(), replace(RULE, least=-9.0))
    assert found[0].harm > 2 * found[-1].harm
    assert all(each.no_op == 0.0 for each in found)


def test_the_tuned_rule_harms_no_more_than_a_random_choice_and_earns_the_most_of_those() -> None:
    given = measured()
    rule = tune(given, RULE)
    chosen, bound = consequence(given, rule), given.random_harm()
    assert consequence(given, replace(RULE, harm_weight=0.0)).harm > bound
    assert chosen.harm <= bound
    assert chosen.reward == max(each.reward for each in trade_off(given, RULE) if each.harm <= bound)


def test_without_pairs_the_rule_stays_and_nothing_is_claimed() -> None:
    nothing = Measured(*(np.zeros(0),) * 4, np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64))
    assert tune(nothing, RULE) == RULE
    assert np.isnan(consequence(nothing, RULE).reward)
    assert nothing.random_harm() == 0.0


def test_predictions_tune_with_clipped_uplifts_and_without_risks_weigh_no_harm() -> None:
    given, count = measured(), len(measured().state)
    logits = np.log(np.stack([1.0 - given.harm, *(np.full(count, 1e-9),) * 2, given.harm, np.full(count, 1e-9)], 1))
    zeros = np.zeros(count, dtype=np.int64)
    labels = Labels(
        zeros, given.state, zeros, zeros, given.reward * 40, np.ones(count), 3 * given.harmful, np.zeros((count, 4))
    )
    said = Predictions(given.value, given.logit, None, logits)
    clipped = replace(given, reward=(given.reward * 40).clip(-0.25, 0.25))
    assert tuned_on(said, labels, 1.0, 0.25, RULE) == tune(clipped, RULE)
    assert tuned_on(replace(said, risk_logits=None), labels, 1.0, 0.25, RULE).harm_weight == 0.0
