"""An experiment: folds by host, the same weights every time and after any kill, and honest where labels are missing."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from gnn.model.experiment import head_status, train
from gnn.model.rounds import CataloguePriors, fold_rounds, pose, published_round
from gnn.model.trained import TrainedModel
from gnn.norms.priors import DEFAULT_PRIORS
from schemas.artifacts import PriorNorm
from schemas.configuration import ModelConfig, TrainingConfig
from schemas.splits import FOLD_NAMES, host_digest, split_bucket
from tests.gnn.model.store import MemoryStore, problem

SMALL = ModelConfig(hidden=8, activation_hidden=8, out=8, head_hidden=8, rank=4, members=2)
CONFIG = TrainingConfig(
    epochs=3,
    rounds_epochs=1,
    batch_graphs=8,
    bootstrap=20,
    checkpoint_seconds=0.0,
    boosting=False,
    gaussian_process=False,
    model=SMALL,
)
GRAPHS = 16  # hosts; three of them are of bucket 7


def same(a: TrainedModel, b: TrainedModel) -> bool:
    pairs = zip(a.network.state_dict().values(), b.network.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module")
def whole() -> TrainedModel:
    """An experiment that nothing interrupted."""
    return train(*problem(GRAPHS), CONFIG)


def test_folds_are_of_hosts_and_none_is_judged_by_a_network_that_saw_it() -> None:
    posed = pose(*problem(30), CONFIG)
    seen: dict[str, Collection[str]] = {}

    def on(hosts: Collection[str]) -> dict[str, PriorNorm]:
        seen[str(len(seen))] = set(hosts)
        return dict(DEFAULT_PRIORS)

    priors = CataloguePriors(DEFAULT_PRIORS, on)
    rounds = fold_rounds(posed, SMALL, priors)
    judged = np.concatenate([one.judges for one in rounds])
    assert sorted(judged.tolist()) == list(range(len(posed.labels)))
    for one, fitted in zip(rounds, seen.values(), strict=True):
        trained, mine = set(posed.host[one.rows]), set(posed.host[one.judges])
        assert trained.isdisjoint(mine)
        assert fitted == trained
        assert {f"fold_{split_bucket(host) // 2}" for host in mine} == {one.name}
    last = published_round(posed, SMALL, priors)
    assert {split_bucket(host) for host in posed.host[last.rows]} == set(range(10)) - {7}
    assert {split_bucket(host) for host in posed.host[posed.parts["bucket_7"]]} == {7}


def test_a_held_out_data_set_is_in_no_round() -> None:
    store, examples = problem(12)
    rows = examples.to_pylist()
    for row in rows:
        if row["host"] in ("host-1", "host-4"):
            row |= {"split": "held_out", "data_set": "names"}
    posed = pose(store, pa.Table.from_pylist(rows, schema=examples.schema), CONFIG)
    priors = CataloguePriors(DEFAULT_PRIORS, lambda _: DEFAULT_PRIORS)
    for one in (*fold_rounds(posed, SMALL, priors), published_round(posed, SMALL, priors)):
        assert not {"host-1", "host-4"} & set(posed.host[one.rows])
    assert set(posed.host[posed.parts["held_out"]]) == {"host-1", "host-4"}
    found = train(store, posed.examples, CONFIG)
    assert found.metrics["hosts"]["held_out"] == 2
    assert found.metrics["held_out_data_set"]["name"] == "names"
    assert {host_digest("host-1"), host_digest("host-4")}.isdisjoint(found.summary["host_digests"])


def test_the_same_labels_give_the_same_weights_and_figures(whole: TrainedModel) -> None:
    again = train(*problem(GRAPHS), CONFIG)
    assert same(whole, again)
    assert whole.metrics == again.metrics
    assert all(whole.tables[name].equals(again.tables[name]) for name in whole.tables)
    assert not same(whole, train(*problem(GRAPHS), CONFIG.model_copy(update={"seed": 1})))


def test_training_leaves_the_process_as_it_was() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    threads = torch.get_num_threads()
    train(*problem(8), CONFIG)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


class Stop(Exception):
    """Raised by a test in the middle of an experiment."""


@pytest.mark.parametrize(("where", "epoch"), [("fold_0", 1), ("fold_3", 2), ("published", 1)])
def test_a_stop_after_any_epoch_changes_nothing(tmp_path: Path, whole: TrainedModel, where: str, epoch: int) -> None:
    def stop(what: str, done: int, _of: int) -> None:
        if (what, done) == (where, epoch):
            raise Stop

    with pytest.raises(Stop):
        train(*problem(GRAPHS), CONFIG, tmp_path, stop)
    seen: list[tuple[str, int]] = []
    resumed = train(*problem(GRAPHS), CONFIG, tmp_path, lambda what, done, _: seen.append((what, done)))
    assert (where, epoch) not in seen
    assert same(whole, resumed)
    assert whole.metrics == resumed.metrics


def test_kill_9_in_the_middle_changes_nothing(tmp_path: Path, whole: TrainedModel) -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from tests.gnn.model.store import problem
        from tests.gnn.model.test_experiment import CONFIG, GRAPHS
        from gnn.model.experiment import train
        def progress(what, done, total):
            if (what, done) == ("fold_2", 1):
                os.kill(os.getpid(), signal.SIGKILL)
        train(*problem(GRAPHS), CONFIG, Path(sys.argv[1]), progress)
        """
    )
    root = Path(__file__).resolve().parents[3]
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=root, env=os.environ | {"PYTHONPATH": str(root)})
    assert killed.returncode == -signal.SIGKILL
    resumed = train(*problem(GRAPHS), CONFIG, tmp_path)
    assert same(whole, resumed)
    assert whole.metrics == resumed.metrics


def test_two_at_a_time_are_the_same_and_each_is_done_once(tmp_path: Path, whole: TrainedModel) -> None:
    seen: list[tuple[str, int]] = []
    beside = train(*problem(GRAPHS), CONFIG, tmp_path, lambda what, done, _: seen.append((what, done)), processes=2)
    assert same(whole, beside)
    assert whole.metrics == beside.metrics
    assert len(seen) == len(set(seen))
    assert {path.stem for path in tmp_path.glob("*.pt")} == {*FOLD_NAMES, "published"}
    assert {path.name for path in (tmp_path / "claims").iterdir()} == {*FOLD_NAMES, "published"}


def test_a_checkpoint_of_other_data_or_a_damaged_one_is_not_used(tmp_path: Path, whole: TrainedModel) -> None:
    train(*problem(GRAPHS, seed=1), CONFIG, tmp_path)
    assert same(whole, train(*problem(GRAPHS), CONFIG, tmp_path))
    for path in tmp_path.glob("*.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    assert same(whole, train(*problem(GRAPHS), CONFIG, tmp_path))


def test_what_is_asked_for_is_compared_and_the_rest_says_that_it_was_not() -> None:
    asked = CONFIG.model_copy(
        update={
            "boosting": True, "boosting_rounds": 2, "gaussian_process": True, "no_messages": True, "learning_curve": (0.5,)
        }
    )  # fmt: skip
    found = train(*problem(12), asked)
    assert None not in found.metrics["gap_closed"].values()
    rows = found.tables["training.evaluation"].to_pylist()
    assert {row["metric"] for row in rows if row["model"] == "model"} >= {"gap_closed/hosts=0.5", "risk_auroc"}
    plain = train(*problem(12), CONFIG)
    absent = [name for name, span in plain.metrics["gap_closed"].items() if span is None]
    assert absent == ["no_messages", "boosting", "gaussian_process"]
    assert {plain.metrics_missing[f"gap_closed.{name}"] for name in absent} == {"switched off by configuration"}


def test_metrics_are_those_of_the_design(whole: TrainedModel) -> None:
    assert set(whole.metrics) == {
        "gap_closed", "gap_closed_minus_best_baseline", "gap_closed_by_state", "replicate_ceiling", "benefit", "harm_rate",
        "folds", "within_state_spearman", "value_r2", "value_interval_coverage", "risk_macro_f1", "risk_ece_before",
        "risk_ece_after", "risk_brier", "hosts", "examples", "label_reliability", "held_out_data_set",
    }  # fmt: skip
    assert set(whole.metrics["gap_closed"]) == {
        "model", "no_messages", "ridge", "boosting", "gaussian_process", "best_constant", "best_grouped", "random", "no_op"
    }  # fmt: skip
    assert set(whole.metrics["harm_rate"]) == {"chosen", "random"}
    assert set(whole.metrics["hosts"]) == set(whole.metrics["examples"]) == {"out_of_fold", "bucket_7", "held_out"}
    assert whole.metrics["hosts"]["out_of_fold"] == GRAPHS
    assert 0.5 < whole.metrics["replicate_ceiling"] <= 1.0
    trained = {host_digest(f"host-{n}") for n in range(GRAPHS) if split_bucket(f"host-{n}") != 7}
    assert set(whole.summary["host_digests"]) == trained
    rows = whole.tables["training.predictions"].to_pylist()
    assert {row["split"] for row in rows} == {*FOLD_NAMES, "bucket_7"}
    assert {row["model"] for row in rows} == {"model", "ridge", "best_constant", "best_grouped"}
    assert {row["split"] for row in whole.tables["training.evaluation"].to_pylist()} == {"out_of_fold", "bucket_7"}


def test_hosts_of_bucket_7_never_change_the_published_weights(whole: TrainedModel) -> None:
    store, examples = problem(GRAPHS)
    other = examples.to_pylist()
    for row in other:
        if split_bucket(row["host"]) == 7:
            row |= {"u": row["u"] - 3.0, "u_test": row["u_test"] - 3.0, "risk_class": "critical"}
    moved = train(store, pa.Table.from_pylist(other, schema=examples.schema), CONFIG)
    assert same(whole, moved)
    assert whole.metrics["value_r2"] != moved.metrics["value_r2"]


def test_without_labels_the_heads_are_marked_and_nothing_breaks() -> None:
    store, examples = problem(6)
    report = train(store, examples.slice(0, 0), CONFIG, unusable={"no control_delta or base_loss": 46})
    assert [name for name, head in report.heads.items() if head.trained] == []
    assert report.untrained == [
        f"{name}: no usable label (46 reports: no control_delta or base_loss)" for name in ("policy", "value", "risk")
    ]
    assert report.kernels == ()
    assert report.metrics["gap_closed"] == dict.fromkeys(report.metrics["gap_closed"])
    assert set(report.metrics_missing) >= {"gap_closed.model", "benefit", "value_r2", "risk_ece_after", "label_reliability"}


def test_a_horizon_without_a_label_is_said_and_no_other_one_is_taken() -> None:
    store, examples = problem(6)
    report = train(store, examples, CONFIG.model_copy(update={"horizon": 50}))
    assert report.horizon == 50
    assert not report.heads["policy"].trained
    assert f"none at horizon 50, but {examples.num_rows} at 100" in str(report.heads["policy"].reason)


def test_hosts_of_one_fold_alone_train_a_network_and_give_no_figure() -> None:
    store, examples = problem(12)
    split = np.array(examples["split"].to_pylist())
    (fold, *_) = [name for name in np.unique(split) if name != "fold_3"]
    report = train(store, examples.filter(pa.array(split == fold)), CONFIG)
    assert report.heads["policy"].trained
    assert report.metrics["benefit"] is None
    assert report.tables["training.predictions"].num_rows == 0


def test_a_head_needs_a_choice_to_learn_the_policy() -> None:
    store, examples = problem(5)
    first = np.unique(np.array(examples["packet_id"].to_pylist()), return_index=True)[1]
    heads = head_status(pose(store, examples.take(first), CONFIG), {})
    assert (heads["policy"].trained, heads["value"].trained) == (False, True)


def test_a_store_without_graphs_is_no_error() -> None:
    _, examples = problem(3)
    report = train(MemoryStore([]), examples, CONFIG)
    assert report.summary["examples_without_a_graph"] == examples.num_rows
