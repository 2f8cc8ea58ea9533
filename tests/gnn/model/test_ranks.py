"""Which process does which training: whole trainings, as evenly as they can be shared, and always the same."""

import numpy as np
import pytest
import torch

from gnn.model.ranks import Ranks, owners_of
from gnn.model.rounds import NOTHING, Round
from gnn.norms.priors import DEFAULT_PRIORS
from schemas.configuration import ModelConfig
from schemas.errors import TrainingError

ROUNDS = [
    Round(name, np.arange(size), NOTHING, DEFAULT_PRIORS, ModelConfig())
    for name, size in (("fold_0", 80), ("fold_1", 81), ("fold_2", 79), ("fold_3", 80), ("fold_4", 80), ("published", 90))
]


def test_each_training_has_one_process_and_the_first_one_has_time_for_the_baselines() -> None:
    alone = owners_of(ROUNDS, 1)
    assert alone == dict.fromkeys((one.name for one in ROUNDS), 0)
    two = owners_of(ROUNDS, 2)
    assert [list(two.values()).count(rank) for rank in (0, 1)] == [2, 4]
    assert two["published"] == 1, "the longest begins first, beside the baselines"
    many = owners_of(ROUNDS, 7)
    assert sorted(many.values()) == [1, 2, 3, 4, 5, 6], "nothing but the baselines is left for the first"


def test_the_order_of_the_trainings_does_not_matter() -> None:
    assert owners_of(ROUNDS[::-1], 3) == owners_of(ROUNDS, 3)
    assert owners_of([], 3) == {}


def test_a_process_that_torchrun_did_not_start_is_alone() -> None:
    with Ranks.joined({}, "cpu") as ranks:
        assert (ranks.rank, ranks.size, ranks.device.type) == (0, 1, "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_machine_without_a_gpu_says_so() -> None:
    with pytest.raises(TrainingError, match="expected a GPU on this machine, found none"), Ranks.joined({}, "cuda"):
        pass
