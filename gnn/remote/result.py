"""Write and read the result of a training that ran in a process of its own: a folder that appears whole or not at all.

| file | what |
|---|---|
| `result.json` | digest of the inputs, code version, versions and device, size and digest of each other file |
| `weights.safetensors` | the published weights |
| `figures.json` | heads, calibration, metrics, summary: what the manifest of the bundle says |
| `predictions.arrow`, `evaluation.arrow`, `calibration.arrow` | the tables `training.*` |

Nothing in it is code. The reader is told the digest of `result.json` by the process that wrote it, and refuses everything else.
"""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import safetensors
import safetensors.torch
import torch
import torch_geometric
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from gnn.code_version import code_version
from gnn.graph.files import FileRecord
from gnn.model.calibration import Calibration
from gnn.model.network import TamiyoGNN
from gnn.model.ranks import network_of
from gnn.model.trained import HeadStatus, TrainedModel
from gnn.remote.folder import faults_of, read_plain, record_of, records_of, table_bytes, table_of
from lake.durable.publish import beside, ensure_dir, publish_dir, sweep, write_durable
from lake.durable.strict_json import dump_object, parse_object
from schemas.configuration import ModelConfig, TrainingConfig
from schemas.derived.training import CALIBRATION, EVALUATION, KEYS, PREDICTIONS
from schemas.errors import TrainingError
from schemas.kernels import KERNELS

MANIFEST: Final = "result.json"
FORMAT: Final = "tamiyo_training_result"
VERSION: Final = 1
_WEIGHTS: Final = "weights.safetensors"
_FIGURES: Final = "figures.json"
_TABLES: Final[Mapping[str, pa.Schema]] = {
    "predictions": PREDICTIONS,
    "evaluation": EVALUATION,
    "calibration": CALIBRATION,
}
_FILES: Final = (_WEIGHTS, _FIGURES, *(f"{name}.arrow" for name in _TABLES))
_MIB: Final = 1 << 20
_MOST: Final = {_WEIGHTS: 1024 * _MIB, _FIGURES: 64 * _MIB}  # bytes; of a table: 16 GiB
_ADVICE: Final = "run the training again: it goes on from its checkpoints"


class ResultManifest(BaseModel):
    """`result.json`: what was trained, by which code and on what, and a digest of each other file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: str
    version: int
    inputs: str
    code: str
    versions: dict[str, str]
    device: str
    processes: int
    files: dict[str, FileRecord]


@dataclass(frozen=True)
class _Figures:
    """`figures.json`: what `TrainedModel` holds beside weights, tables and configuration; a loss that is not finite is null."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    horizon: int | None
    heads: dict[str, HeadStatus]
    kernels: tuple[str, ...]
    site_kernels: dict[int, tuple[str, ...]]
    calibration: Calibration
    metrics: dict[str, Any]
    metrics_missing: dict[str, str]
    summary: dict[str, Any]
    history: tuple[dict[str, float | None], ...]


_ADAPTER: Final = TypeAdapter(_Figures)


def write_result(directory: Path, trained: TrainedModel, inputs: str, *, processes: int) -> str:
    """Replace the folder `directory` and return the digest of its `result.json`; `inputs` is the digest of the inputs."""
    history = [{name: value if math.isfinite(value) else None for name, value in row.items()} for row in trained.history]
    figures = {name: getattr(trained, name) for name in _Figures.__dataclass_fields__}
    figures |= {
        "heads": {name: asdict(head) for name, head in trained.heads.items()},
        "calibration": asdict(trained.calibration),
        "history": history,
    }
    state = trained.network.state_dict()
    files = {
        _WEIGHTS: safetensors.torch.save({name: state[name].detach().cpu().contiguous() for name in sorted(state)}),
        _FIGURES: dump_object(figures),
        **{f"{name}.arrow": table_bytes(trained.tables[f"training.{name}"]) for name in _TABLES},
    }
    manifest = ResultManifest(
        format=FORMAT,
        version=VERSION,
        inputs=inputs,
        code=code_version(),
        versions={"torch": torch.__version__, "torch_geometric": torch_geometric.__version__},
        device=torch.cuda.get_device_name() if trained.config.device == "cuda" else "cpu",
        processes=processes,
        files=records_of(files),
    )
    files[MANIFEST] = dump_object(manifest.model_dump(mode="json"))
    ensure_dir(directory.parent)
    temporary = beside(directory)
    ensure_dir(temporary)
    for name, data in files.items():
        write_durable(temporary / name, data)
    if directory.exists():
        shutil.rmtree(directory)
    publish_dir(temporary, directory)
    sweep(directory.parent, directory.name)
    return record_of(files[MANIFEST]).sha256


def read_result(directory: Path, digest: str, inputs: str, config: TrainingConfig, examples: pa.Table) -> TrainedModel:
    """Return the trained model in `directory`, whose `result.json` must have the digest `digest` and be of these `inputs`.

    `examples` and `config` are those that were sent. Raises TrainingError, which lists what is not as expected.
    """
    data = read_plain(directory, MANIFEST, _MIB)
    found = record_of(data).sha256
    if found != digest:
        raise TrainingError(f"{directory}: {MANIFEST}: expected SHA-256 {digest}, which was reported, found {found}; {_ADVICE}")
    manifest = _manifest(data, directory)
    faults = [
        f"{name}: expected {expected}, found {there}"
        for name, expected, there in (
            ("inputs", inputs, manifest.inputs),
            ("code", code_version(), manifest.code),
            ("files", sorted(_FILES), sorted(manifest.files)),
        )
        if expected != there
    ] or faults_of(directory, manifest.files, MANIFEST)
    if faults:
        raise TrainingError(f"{directory}: " + "; ".join(faults[:20]) + f"; {_ADVICE}")
    files = {name: _checked(directory, name, manifest.files[name]) for name in _FILES}
    figures = _figures(files[_FIGURES], directory)
    tables = {f"training.{name}": _table(files[f"{name}.arrow"], name, directory) for name in _TABLES}
    _refuse_strangers(tables["training.predictions"], examples, directory)
    fields = {name: getattr(figures, name) for name in _Figures.__dataclass_fields__}
    fields["history"] = tuple({k: math.nan if v is None else v for k, v in row.items()} for row in figures.history)
    network = _network(files[_WEIGHTS], config.model, directory)
    return TrainedModel(network=network, config=config, tables={"training.examples": examples} | tables, **fields)


def _checked(directory: Path, name: str, record: FileRecord) -> bytes:
    """Return the bytes of a file; they are those whose digest was listed, even if the file changes while it is read."""
    data = read_plain(directory, name, _MOST.get(name, 16 * 1024 * _MIB))
    if record_of(data) != record:
        raise TrainingError(f"{directory}: {name}: expected SHA-256 {record.sha256}, found another; {_ADVICE}")
    return data


def _manifest(data: bytes, directory: Path) -> ResultManifest:
    try:
        manifest = ResultManifest.model_validate_json(json.dumps(parse_object(data, directory / MANIFEST, TrainingError)))
    except ValidationError as error:
        raise TrainingError(f"{directory / MANIFEST}: breaks its format: {error.errors()[:3]}; {_ADVICE}") from None
    if (manifest.format, manifest.version) != (FORMAT, VERSION):
        raise TrainingError(
            f"{directory / MANIFEST}: expected {FORMAT} {VERSION}, found {manifest.format} {manifest.version}; {_ADVICE}"
        )
    return manifest


def _figures(data: bytes, directory: Path) -> _Figures:
    path = directory / _FIGURES
    try:
        figures = _ADAPTER.validate_json(json.dumps(parse_object(data, path, TrainingError)), strict=True)
    except ValidationError as error:
        raise TrainingError(f"{path}: breaks its format: {error.errors()[:3]}; {_ADVICE}") from None
    strange = sorted({*figures.kernels, *(k for each in figures.site_kernels.values() for k in each)} - set(KERNELS))
    if strange:
        raise TrainingError(f"{path}: expected kernels of the policy, found {strange[:5]}; {_ADVICE}")
    return figures


def _table(data: bytes, name: str, directory: Path) -> pa.Table:
    table, expected = table_of(data, f"{directory}: {name}.arrow"), _TABLES[name]
    if table.schema != expected:
        raise TrainingError(f"{directory}: {name}.arrow: expected columns {expected.names}, found {table.schema}; {_ADVICE}")
    return table


def _refuse_strangers(predictions: pa.Table, examples: pa.Table, directory: Path) -> None:
    """Raise TrainingError if a prediction is of no example."""
    asked, known = (pl.DataFrame(table.select(list(KEYS)).to_pydict()) for table in (predictions, examples))
    strange = asked.join(known, on=list(KEYS), how="anti") if len(asked) and len(known) else asked
    if len(strange):
        raise TrainingError(
            f"{directory}: predictions.arrow: expected measured outcomes of the inputs, found {len(strange)} others, "
            f"such as {strange.row(0)}; {_ADVICE}"
        )


def _network(data: bytes, model: ModelConfig, directory: Path) -> TamiyoGNN:
    path = directory / _WEIGHTS
    try:
        weights = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise TrainingError(f"{path}: expected a safetensors file, found {error}; {_ADVICE}") from None
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        expected = _shapes(TamiyoGNN(model).state_dict())
    found = _shapes(weights)
    faults = [
        f"weight {name}: expected {expected.get(name)}, found {found.get(name)}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    if not faults:
        faults = [f"weight {n}: expected finite numbers" for n, w in weights.items() if not np.isfinite(w.numpy()).all()]
    if faults:
        raise TrainingError(f"{path}: " + "; ".join(faults[:20]) + f"; {_ADVICE}")
    return network_of(model, weights)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
