"""Write and read the inputs of one training: a folder with nothing else in it, to be copied to the machine that trains.

| file | what |
|---|---|
| `inputs.json` | what the build is made of (data versions, code, configuration), versions of torch, each file's digest |
| `examples.arrow` | `training.examples`: measured outcomes, with their host and split |
| `graphs/<bucket>/` | the shards of the graph dataset |
| `catalogue/<table>.arrow` | the columns of the catalogue that the priors of each fold are fitted on |
| `kernels.safetensors` | the kernels' descriptors |
| `gnn_norms.json`, `registries/` | as in the bundle |

The digest of `inputs.json` stands for all of it. The reader opens no path that a file names: it lists the folder, and refuses
it if a file is missing, additional, a link, or of another digest.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final

import pyarrow as pa
import safetensors
import safetensors.torch
import torch
import torch_geometric
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from gnn.bundle.build_id import BuildInputs
from gnn.bundle.members import NORMS, REGISTRY_DIR, REGISTRY_FILES, REGISTRY_INDEX
from gnn.code_version import code_version
from gnn.graph.dataset import GRAPHS, GraphDataset
from gnn.graph.files import FileRecord, read_header
from gnn.model.rounds import CataloguePriors
from gnn.norms.priors import fit_priors, fitted_columns
from gnn.norms.published import from_bytes as norms_of
from gnn.registry.files import resolve
from gnn.registry.refresh import load_bytes as registries_of
from gnn.remote.folder import faults_of, read_plain, record_of, records_of, table_bytes, table_of
from lake.durable.publish import beside, ensure_dir, publish_dir, sweep, write_durable
from lake.durable.strict_json import dump_object, parse_object
from schemas.configuration import TrainingConfig
from schemas.derived.training import EXAMPLES
from schemas.errors import NormsError, RegistryError, TrainingError

MANIFEST: Final = "inputs.json"
FORMAT: Final = "tamiyo_training_inputs"
VERSION: Final = 1
_EXAMPLES: Final = "examples.arrow"
_KERNELS: Final = "kernels.safetensors"
_CATALOGUE: Final = "catalogue"
_MOST: Final = 1 << 34  # bytes of one file that is read whole
_MANIFEST_MOST: Final = 64 << 20
_ADVICE: Final = "run the training again: it rewrites its inputs"


class InputsManifest(BaseModel):
    """`inputs.json`: what the training is made of, and a digest of each other file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str
    version: int
    build: BuildInputs
    torch: str
    torch_geometric: str
    unusable: Mapping[str, int]
    files: Mapping[str, FileRecord]


@dataclass(frozen=True)
class TrainingInputs:
    """Everything that a training reads, with the digest of its `inputs.json`.

    `dataset` holds unscaled graphs, `catalogue` the tables that priors are fitted on, `kernels` float32 [32, 24] the kernels'
    descriptors, `unusable` the number of reports that gave no label, by reason.
    """

    build: BuildInputs
    dataset: GraphDataset
    examples: pa.Table
    unusable: Mapping[str, int]
    priors: CataloguePriors
    kernels: Tensor
    digest: str

    @cached_property
    def config(self) -> TrainingConfig:
        """The configuration of the training."""
        return TrainingConfig.model_validate(self.build.configuration)


def write_inputs(
    directory: Path,
    build: BuildInputs,
    *,
    dataset: GraphDataset,
    examples: pa.Table,
    unusable: Mapping[str, int],
    catalogue: Mapping[str, pa.Table],
    kernels: Tensor,
    registries: Path,
    norms: Path,
) -> str:
    """Replace the folder `directory`, whole or not at all, and return the digest of its `inputs.json`.

    `registries` and `norms` are the published registry directory and `gnn_norms.json`. Shards are linked, not copied, if they
    are on the same file system.
    """
    root = resolve(registries)
    files = {
        _EXAMPLES: table_bytes(examples),
        _KERNELS: safetensors.torch.save({"kernels": kernels.contiguous()}),
        NORMS: norms.read_bytes(),
        **{f"{_CATALOGUE}/{name}.arrow": table_bytes(table) for name, table in fitted_columns(catalogue).items()},
        **{name: (root / name.removeprefix(f"{REGISTRY_DIR}/")).read_bytes() for name in (REGISTRY_INDEX, *REGISTRY_FILES)},
    }
    sweep(directory.parent, directory.name)
    ensure_dir(directory.parent)
    temporary = beside(directory)
    shards = {
        f"{GRAPHS}/{shard.directory.parent.name}/{name}": record
        for shard in dataset.shards
        for name, record in _link_shard(shard.directory, temporary / GRAPHS / shard.directory.parent.name)
    }
    manifest = InputsManifest(
        format=FORMAT,
        version=VERSION,
        build=build,
        torch=_release(torch.__version__),
        torch_geometric=torch_geometric.__version__,
        unusable=unusable,
        files=records_of(files) | shards,
    )
    files[MANIFEST] = dump_object(manifest.model_dump(mode="json"))
    for name, data in files.items():
        ensure_dir((temporary / name).parent)
        write_durable(temporary / name, data)
    if directory.exists():
        directory.rename(beside(directory))
    publish_dir(temporary, directory)
    sweep(directory.parent, directory.name)
    return record_of(files[MANIFEST]).sha256


def _link_shard(shard: Path, destination: Path) -> list[tuple[str, FileRecord]]:
    """Link or copy the files of a shard; return their records, those of the data files as the shard's header states them."""
    ensure_dir(destination)
    header = (shard / "header.json").read_bytes()
    write_durable(destination / "header.json", header)
    records = read_header(shard).files
    for name in records:
        try:
            os.link(shard / name, destination / name)
        except OSError:
            shutil.copyfile(shard / name, destination / name)
    return [("header.json", record_of(header)), *records.items()]


def read_inputs(directory: Path) -> TrainingInputs:
    """Read the folder `directory`, every byte of it checked.

    Raises TrainingError, which lists what is damaged, or what of this machine's code and libraries differs from the sender's.
    """
    data = read_plain(directory, MANIFEST, _MANIFEST_MOST)
    manifest = _manifest(data, directory)
    faults = faults_of(directory, manifest.files, MANIFEST)
    if faults:
        raise TrainingError(f"{directory}: " + "; ".join(faults[:20]) + f"; {_ADVICE}")

    def part(name: str) -> bytes:
        return read_plain(directory, name, _MOST)

    try:
        kernels = safetensors.torch.load(part(_KERNELS))["kernels"]
        norms = norms_of(part(NORMS), directory / NORMS)
        names = (REGISTRY_INDEX, *REGISTRY_FILES)
        registries = registries_of({n.removeprefix(f"{REGISTRY_DIR}/"): part(n) for n in names}, directory / REGISTRY_DIR)
    except (NormsError, RegistryError, safetensors.SafetensorError, KeyError) as error:
        raise TrainingError(f"{directory}: {error}; {_ADVICE}") from None
    if (registries.digests(), norms.digest) != (dict(manifest.build.registries), manifest.build.norms):
        raise TrainingError(f"{directory}: expected the registries and norms of one build, found a mix; {_ADVICE}")
    examples = table_of(part(_EXAMPLES), _EXAMPLES)
    if examples.schema != EXAMPLES:
        raise TrainingError(f"{directory}: {_EXAMPLES}: expected the columns of training.examples, found {examples.schema}")
    catalogue = {
        path.stem: table_of(part(f"{_CATALOGUE}/{path.name}"), path.name)
        for path in sorted((directory / _CATALOGUE).iterdir())
        if path.name.endswith(".arrow")
    }
    return TrainingInputs(
        build=manifest.build,
        dataset=GraphDataset.of(_shards(directory / GRAPHS)),
        examples=examples,
        unusable=manifest.unusable,
        priors=CataloguePriors(norms.priors, partial(fit_priors, catalogue)),
        kernels=kernels,
        digest=record_of(data).sha256,
    )


def _manifest(data: bytes, directory: Path) -> InputsManifest:
    try:
        manifest = InputsManifest.model_validate(parse_object(data, directory / MANIFEST, TrainingError))
    except ValidationError as error:
        raise TrainingError(f"{directory / MANIFEST}: breaks its format: {error.errors()[:3]}; {_ADVICE}") from None
    here = {
        "format": FORMAT,
        "version": VERSION,
        "code": code_version(),
        "torch": _release(torch.__version__),
        "torch_geometric": torch_geometric.__version__,
    }
    there = {**manifest.model_dump(include={"format", "version", "torch", "torch_geometric"}), "code": manifest.build.code}
    differs = [f"{name}: expected {there[name]}, found {here[name]}" for name in here if here[name] != there[name]]
    if differs:
        raise TrainingError(
            f"this machine can't train {directory}: {'; '.join(differs)}; install the sender's version of tamiyo-assets here"
        )
    return manifest


def _shards(directory: Path) -> list[Path]:
    """Return the folders of the shards in order of their buckets."""
    found = sorted(directory.iterdir()) if directory.is_dir() else []
    return sorted((path for path in found if path.name.isdecimal()), key=lambda path: int(path.name))


def _release(version: str) -> str:
    """Return a version without its local part: the builds of torch for CPUs and for GPUs are one release."""
    return version.partition("+")[0]
