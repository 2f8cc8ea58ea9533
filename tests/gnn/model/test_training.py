"""Fitting one network: what it learns, where it starts, and whose its checkpoints are."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from benchmarks.random_graphs import random_batch
from gnn.model.checkpoint import Checkpoints
from gnn.model.priors import kernel_priors
from gnn.model.targets import collate, locate
from gnn.model.training import drop_ids
from schemas.artifacts import REGISTRIES
from schemas.configuration import LossWeights, ModelConfig, TrainingConfig
from schemas.features import NODE_TYPES
from schemas.kernels import KERNELS
from tests.gnn.model.store import problem

SMALL = ModelConfig(hidden=8, activation_hidden=8, out=8, head_hidden=16, rank=4, members=2)
CONFIG = TrainingConfig(
    epochs=3,
    rounds_epochs=2,
    batch_graphs=8,
    bootstrap=20,
    checkpoint_seconds=0.0,
    boosting=False,
    gaussian_process=False,
    model=SMALL,
)


def test_checkpoints_know_whose_they_are(tmp_path: Path) -> None:
    mine = Checkpoints(tmp_path / "c.pt", "a", every_s=0.0)
    mine.save({"epoch": 3}, last=False)
    assert mine.load() == {"epoch": 3, "fingerprint": "a"}
    assert Checkpoints(tmp_path / "c.pt", "b").load() is None
    assert Checkpoints(None, "a").load() is None


def test_labels_stand_at_their_seed_and_kernel() -> None:
    store, examples = problem(5)
    labels, unplaced = locate(store, examples)
    assert (len(labels), unplaced) == (examples.num_rows, 0)
    batch = collate(store, labels, [3, 1])
    rows = examples.take(batch.example).to_pylist()
    for place, row in enumerate(rows):
        graph = [3, 1][int(batch.graph[place])]
        assert row["packet_id"] == f"p-{graph}"
        assert int(batch.seed[place]) == int(row["seed_id"][-1]) + 3 * int(batch.graph[place])
        assert KERNELS[int(batch.kernel[place])] == row["kernel"]
        assert float(batch.uplift[place]) == pytest.approx(row["u"], rel=1e-6)


def test_examples_of_unknown_packets_or_seeds_are_counted() -> None:
    store, examples = problem(5)
    rows = examples.to_pylist()
    strange = [rows[0] | {"packet_id": "p-99"}, rows[1] | {"seed_id": "nobody"}]
    _, unplaced = locate(store, pa.Table.from_pylist(rows + strange, schema=examples.schema))
    assert unplaced == 2


def test_both_rows_of_every_table_are_trained() -> None:
    torch.manual_seed(0)
    batch = drop_ids(random_batch(400), TrainingConfig())
    for node in NODE_TYPES:
        for column, feature in enumerate(node.categorical):
            found = set(batch.ids[node.name][:, column].tolist())
            assert {0, REGISTRIES[str(feature.registry)].unknown} <= found


def test_priors_shrink_rare_kernels_towards_the_mean() -> None:
    labels, _ = locate(*problem(10))
    priors = kernel_priors(labels)
    known = np.bincount(labels.kernel, minlength=32) > 0
    overall = np.average(labels.uplift, weights=labels.weight)
    assert np.allclose(priors.uplift[~known], overall)
    assert np.allclose(priors.risk.sum(1), 1.0)


def test_weights_of_the_losses_start_as_the_design_says() -> None:
    assert (LossWeights().risk, LossWeights().value, LossWeights().policy) == (0.40, 0.35, 0.25)
