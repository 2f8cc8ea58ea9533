"""A result is used only if every byte is what the process reported, and only if it fits what was sent."""

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import safetensors.torch
import torch

from gnn.model.experiment import train
from gnn.model.trained import TrainedModel
from gnn.remote.folder import record_of, table_bytes
from gnn.remote.result import read_result, write_result
from lake.durable.strict_json import dump_object
from schemas.errors import TrainingError
from tests.gnn.model.store import problem
from tests.gnn.model.test_experiment import CONFIG, GRAPHS, same

SENT = "5e" * 32
FILES = {
    "result.json", "weights.safetensors", "figures.json", "predictions.arrow", "evaluation.arrow", "calibration.arrow",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    """A small experiment."""
    return train(*problem(GRAPHS), CONFIG)


def read(directory: Path, told: str, trained: TrainedModel) -> TrainedModel:
    return read_result(directory, told, SENT, trained.config, trained.tables["training.examples"])


def rewritten(directory: Path, **files: bytes) -> str:
    """Put other bytes into some files, `_` standing for `.`, and state their digests; the digest of the new statement."""
    path = directory / "result.json"
    stated = json.loads(path.read_bytes())
    for name, data in files.items():
        (directory / name.replace("_", ".")).write_bytes(data)
        stated["files"][name.replace("_", ".")] = record_of(data).model_dump()
    path.write_bytes(dump_object(stated))
    return record_of(path.read_bytes()).sha256


def test_what_is_read_is_what_was_written(tmp_path: Path, trained: TrainedModel) -> None:
    told = write_result(tmp_path / "result", trained, SENT, processes=1)
    assert {path.name for path in (tmp_path / "result").iterdir()} == FILES
    state = torch.random.get_rng_state()
    found = read(tmp_path / "result", told, trained)
    assert torch.equal(torch.random.get_rng_state(), state), "reading draws no random number"
    assert same(found, trained)
    assert not any(parameter.requires_grad for parameter in found.network.parameters())
    assert all(found.tables[name].equals(trained.tables[name]) for name in trained.tables)
    for name in (
        "horizon",
        "heads",
        "kernels",
        "site_kernels",
        "calibration",
        "metrics",
        "metrics_missing",
        "summary",
        "history",
    ):
        assert getattr(found, name) == getattr(trained, name), name


def test_writing_again_replaces_the_result_whole(tmp_path: Path, trained: TrainedModel) -> None:
    write_result(tmp_path / "result", trained, "0" * 64, processes=1)
    (tmp_path / "result" / "more").write_text("left over")
    told = write_result(tmp_path / "result", trained, SENT, processes=1)
    assert same(read(tmp_path / "result", told, trained), trained)
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (flip, "expected"),
        (lambda path: path.unlink(), "no such file|No such file"),
        (link, "links|symbolic"),
        (fifo, "special|kind"),
    ],
    ids=["flipped", "missing", "link", "fifo"],
)
def test_damage_is_refused(tmp_path: Path, trained: TrainedModel, name: str, damage: Callable[[Path], None], says: str) -> None:
    told = write_result(tmp_path / "result", trained, SENT, processes=1)
    damage(tmp_path / "result" / name)
    with pytest.raises(TrainingError, match=says):
        read(tmp_path / "result", told, trained)


def test_what_was_reported_counts_not_what_the_folder_states(tmp_path: Path, trained: TrainedModel) -> None:
    told = write_result(tmp_path / "result", trained, SENT, processes=1)
    again = rewritten(tmp_path / "result", figures_json=(tmp_path / "result" / "figures.json").read_bytes() + b"\n")
    with pytest.raises(TrainingError, match=f"result.json: expected SHA-256 {told}, which was reported, found {again}"):
        read(tmp_path / "result", told, trained)
    assert same(read(tmp_path / "result", again, trained), trained), "a line end alone"


def test_a_result_of_other_inputs_or_other_code_is_refused(tmp_path: Path, trained: TrainedModel) -> None:
    told = write_result(tmp_path / "result", trained, "0" * 64, processes=1)
    with pytest.raises(TrainingError, match=f"inputs: expected {SENT}, found {'0' * 64}"):
        read(tmp_path / "result", told, trained)
    write_result(tmp_path / "result", trained, SENT, processes=1)
    path = tmp_path / "result" / "result.json"
    path.write_bytes(dump_object(json.loads(path.read_bytes()) | {"code": "1" * 64}))
    with pytest.raises(TrainingError, match=f"code: expected .*, found {'1' * 64}"):
        read(tmp_path / "result", record_of(path.read_bytes()).sha256, trained)


def test_an_extra_file_is_refused(tmp_path: Path, trained: TrainedModel) -> None:
    told = write_result(tmp_path / "result", trained, SENT, processes=1)
    (tmp_path / "result" / "weights.pt").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"'weights\.pt': not listed, found this extra file"):
        read(tmp_path / "result", told, trained)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda weights: weights | {"more": torch.zeros(1)}, "weight more: expected None"),
        (lambda weights: dict(list(weights.items())[1:]), "found None"),
        (lambda weights: {name: each.double() for name, each in weights.items()}, "found .*float64"),
        (lambda weights: {name: each * float("nan") for name, each in weights.items()}, "expected finite numbers"),
        (lambda weights: {name: each.reshape(-1)[:1] for name, each in weights.items()}, "expected .* found"),
    ],
    ids=["extra", "missing", "dtype", "nan", "shape"],
)
def test_weights_of_another_network_are_refused(
    tmp_path: Path,
    trained: TrainedModel,
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    says: str,
) -> None:
    write_result(tmp_path / "result", trained, SENT, processes=1)
    weights = {name: tensor.contiguous() for name, tensor in change(dict(trained.network.state_dict())).items()}
    told = rewritten(tmp_path / "result", weights_safetensors=safetensors.torch.save(weights))
    with pytest.raises(TrainingError, match=f"weights.safetensors: .*{says}"):
        read(tmp_path / "result", told, trained)


class Run:
    """An object whose unpickling would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", sorted(FILES - {"result.json"}))
def test_nothing_is_unpickled(tmp_path: Path, trained: TrainedModel, name: str) -> None:
    write_result(tmp_path / "result", trained, SENT, processes=1)
    told = rewritten(tmp_path / "result", **{name: pickle.dumps(Run(tmp_path / "ran"))})
    with pytest.raises(TrainingError, match=name):
        read(tmp_path / "result", told, trained)
    assert not (tmp_path / "ran").exists()


def test_tables_of_other_columns_or_of_other_outcomes_are_refused(tmp_path: Path, trained: TrainedModel) -> None:
    write_result(tmp_path / "result", trained, SENT, processes=1)
    rows = trained.tables["training.predictions"]
    told = rewritten(tmp_path / "result", predictions_arrow=table_bytes(rows.drop_columns(["value"])))
    with pytest.raises(TrainingError, match=r"predictions.arrow: expected columns"):
        read(tmp_path / "result", told, trained)
    strange = rows.set_column(0, "training_run_id", pa.array(["nobody"] * rows.num_rows))
    told = rewritten(tmp_path / "result", predictions_arrow=table_bytes(strange))
    with pytest.raises(TrainingError, match=f"found {rows.num_rows} others, such as .'nobody'"):
        read(tmp_path / "result", told, trained)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kernels": ["kernel-x"]}, "found .'kernel-x'"),
        ({"horizon": "100"}, "horizon"),
        ({"more": 1}, "more"),
        ({"heads": {"value": {}}}, "heads"),
    ],
)
def test_figures_of_another_form_are_refused(
    tmp_path: Path, trained: TrainedModel, change: dict[str, object], says: str
) -> None:
    write_result(tmp_path / "result", trained, SENT, processes=1)
    figures = json.loads((tmp_path / "result" / "figures.json").read_bytes()) | change
    told = rewritten(tmp_path / "result", figures_json=dump_object(figures))
    with pytest.raises(TrainingError, match=f"figures.json: .*{says}"):
        read(tmp_path / "result", told, trained)


def test_a_loss_that_is_not_finite_is_told(tmp_path: Path, trained: TrainedModel) -> None:
    odd = replace(trained, history=({"epoch": 1.0, "training": float("inf")},))
    found = read(tmp_path / "result", write_result(tmp_path / "result", odd, SENT, processes=1), trained)
    assert str(found.history) == "({'epoch': 1.0, 'training': nan},)"
