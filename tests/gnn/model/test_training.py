"""Training: the same weights every time, also after a kill, and honest where labels are missing."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from benchmarks.random_graphs import random_batch
from gnn.model.checkpoint import Checkpoints
from gnn.model.experiment import head_status, pose, train
from gnn.model.priors import kernel_priors
from gnn.model.targets import collate, locate
from gnn.model.trained import TrainedModel
from gnn.model.training import drop_ids
from schemas.artifacts import REGISTRIES
from schemas.configuration import LossWeights, ModelConfig, TrainingConfig
from schemas.features import NODE_TYPES
from schemas.kernels import KERNELS
from tests.gnn.model.store import MemoryStore, problem

SMALL = ModelConfig(hidden=8, activation_hidden=8, out=8, head_hidden=16, rank=4, members=2)
CONFIG = TrainingConfig(
    epochs=3,
    rounds_epochs=2,
    batch_graphs=8,
    bootstrap=20,
    checkpoint_seconds=0.0,
    boosting=False,
    no_messages=False,
    model=SMALL,
)


def weights(trained: TrainedModel) -> dict[str, torch.Tensor]:
    return trained.network.state_dict()


def same(a: TrainedModel, b: TrainedModel) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values(), strict=True))


def test_the_same_labels_give_the_same_weights_and_figures() -> None:
    first, second = (train(*problem(16), CONFIG) for _ in range(2))
    assert same(first, second)
    assert first.metrics == second.metrics
    assert all(first.tables[name].equals(second.tables[name]) for name in first.tables)
    assert not same(first, train(*problem(16), CONFIG.model_copy(update={"seed": 1})))


def test_training_leaves_the_process_as_it_was() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    threads = torch.get_num_threads()
    train(*problem(8), CONFIG)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_stop_after_any_epoch_changes_nothing(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop_at(epoch: int) -> object:
        def progress(_: str, done: int, total: int) -> None:
            if done == epoch:
                raise Stop

        return progress

    whole = train(*problem(16), CONFIG)
    for epoch in (1, 2):
        folder = tmp_path / str(epoch)
        with pytest.raises(Stop):
            train(*problem(16), CONFIG, folder, stop_at(epoch))
        seen: list[int] = []
        resumed = train(*problem(16), CONFIG, folder, lambda _, done, total, seen=seen: seen.append(done))
        assert seen[0] == epoch + 1
        assert same(whole, resumed)
        assert whole.metrics == resumed.metrics


def test_kill_9_in_the_middle_changes_nothing(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from tests.gnn.model.store import problem
        from tests.gnn.model.test_training import CONFIG
        from gnn.model.experiment import train
        def progress(_, done, total):
            if done == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        train(*problem(12), CONFIG, Path(sys.argv[1]), progress)
        """
    )
    root = Path(__file__).resolve().parents[3]
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=root, env=os.environ | {"PYTHONPATH": str(root)})
    assert killed.returncode == -signal.SIGKILL
    assert same(train(*problem(12), CONFIG), train(*problem(12), CONFIG, tmp_path))


def test_a_checkpoint_of_other_data_or_a_damaged_one_is_not_used(tmp_path: Path) -> None:
    train(*problem(12, seed=1), CONFIG, tmp_path)
    assert same(train(*problem(12), CONFIG), train(*problem(12), CONFIG, tmp_path))
    for path in tmp_path.glob("*.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    assert same(train(*problem(12), CONFIG), train(*problem(12), CONFIG, tmp_path))


def test_the_ablation_beside_the_model_is_the_same_and_is_done_once(tmp_path: Path) -> None:
    config, seen = CONFIG.model_copy(update={"no_messages": True}), list[int]()
    whole = train(*problem(16), config)
    beside = train(*problem(16), config, tmp_path, lambda _, done, total: seen.append(done), processes=2)
    assert same(whole, beside)
    assert whole.metrics == beside.metrics
    assert seen == sorted(set(seen))  # the model's epochs alone: the other process had finished the ablation's


def test_checkpoints_know_whose_they_are(tmp_path: Path) -> None:
    mine = Checkpoints(tmp_path / "c.pt", "a", every_s=0.0)
    mine.save({"epoch": 3}, last=False)
    assert mine.load() == {"epoch": 3, "fingerprint": "a"}
    assert Checkpoints(tmp_path / "c.pt", "b").load() is None
    assert Checkpoints(None, "a").load() is None


def test_without_labels_the_heads_are_marked_and_nothing_breaks() -> None:
    store, examples = problem(6)
    report = train(store, examples.slice(0, 0), CONFIG, unusable={"no control_delta or base_loss": 46})
    assert [name for name, head in report.heads.items() if head.trained] == []
    assert report.untrained == [
        f"{name}: no usable label (46 reports: no control_delta or base_loss)" for name in ("policy", "value", "risk")
    ]
    assert report.kernels == ()
    assert report.metrics["gap_closed"] == dict.fromkeys(report.metrics["gap_closed"])
    assert set(report.metrics_missing) >= {"gap_closed.model", "value_r2", "risk_ece_after", "label_reliability"}


def test_test_hosts_never_change_the_weights_or_the_calibration() -> None:
    store, examples = problem(20)
    other = examples.to_pylist()
    for row in other:
        if row["split"] == "test":
            row |= {"u": row["u"] - 3.0, "risk_class": "critical"}
    moved = pa.Table.from_pylist(other, schema=examples.schema)
    a, b = train(store, examples, CONFIG), train(store, moved, CONFIG)
    assert same(a, b)
    assert a.calibration == b.calibration
    assert a.metrics["value_r2"] != b.metrics["value_r2"]


def test_the_horizon_is_the_usual_one_or_the_configured_one() -> None:
    store, examples = problem(6)
    rows = examples.to_pylist()
    more = pa.Table.from_pylist(rows + [row | {"horizon": 100} for row in rows[:5]], schema=examples.schema)
    assert pose(store, more, CONFIG).horizon == 50
    chosen = pose(store, more, CONFIG.model_copy(update={"horizon": 100}))
    assert sum(len(labels) for labels in chosen.splits.values()) == 5
    assert set(more["horizon"].take(chosen.splits["train"].example).to_pylist()) <= {100}


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


def test_a_head_needs_a_choice_to_learn_the_policy() -> None:
    store, examples = problem(5)
    labels, _ = locate(store, examples)
    one = labels.take(np.unique(labels.graph, return_index=True)[1])
    heads = head_status(one, {})
    assert (heads["policy"].trained, heads["value"].trained) == (False, True)


def test_a_store_without_graphs_is_no_error() -> None:
    _, examples = problem(3)
    report = train(MemoryStore([]), examples, CONFIG)
    assert report.summary["examples_without_a_graph"] == examples.num_rows


def test_weights_of_the_losses_start_as_the_design_says() -> None:
    assert (LossWeights().risk, LossWeights().value, LossWeights().policy) == (0.40, 0.35, 0.25)
