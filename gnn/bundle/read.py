"""Read a bundle: every byte is checked against the manifest before anything is parsed, and no code in it ever runs.

The members are read once. The bytes that are parsed are those that were checked, so no file can be exchanged in between.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, cast

import numpy as np
import safetensors
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from gnn.bundle.files import read_members
from gnn.bundle.layout import dtype_name
from gnn.bundle.manifest import Manifest, digest_of
from gnn.bundle.members import (
    GOLDEN,
    LISTED,
    MANIFEST,
    MANIFEST_DIGEST,
    NORMS,
    REGISTRY_DIR,
    REGISTRY_FILES,
    REGISTRY_INDEX,
    WEIGHTS,
    digest_line,
)
from gnn.model.calibration import Calibration
from gnn.model.decision import DecisionRule
from gnn.model.network import TamiyoGNN
from gnn.norms.published import Norms
from gnn.norms.published import from_bytes as norms_of
from gnn.registry.refresh import Registries
from gnn.registry.refresh import load_bytes as registries_of
from lake.durable.strict_json import parse_object
from schemas.configuration import ModelConfig
from schemas.errors import BundleRejected, NormsError, RegistryError

_HALVES: Final = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Bundle:
    """A bundle, read in full and checked; `network` is in evaluation mode on the CPU."""

    path: Path
    manifest: Manifest
    manifest_digest: str
    network: TamiyoGNN
    registries: Registries
    norms: Norms
    golden: Mapping[str, Tensor]

    @property
    def build_id(self) -> str:
        """The bundle's build id."""
        return self.manifest.build_id

    @property
    def calibration(self) -> Calibration:
        """The bundle's published calibration, including its decision rule."""
        part = self.manifest.calibration
        return Calibration(
            temperature=part.risk_temperature,
            level=part.interval_level,
            scale=part.interval_scale,
            examples=part.examples,
            missing=part.missing,
            rule=DecisionRule(**part.decision.model_dump()),
        )


def read_bundle(path: Path) -> Bundle:
    """Read the bundle at `path`; a link to it, such as `current`, is resolved once.

    Raises BundleRejected, which says what is wrong.
    """
    directory = resolve_once(path)
    return bundle_of(directory, read_members(directory))


def bundle_of(directory: Path, members: Mapping[str, bytes]) -> Bundle:
    """Return the bundle made of these bytes (member name -> content), already read from `directory`.

    Raises BundleRejected, which names each faulty member and what is wrong with it.
    """
    manifest = _check(directory, members)
    weights = _tensors(directory, WEIGHTS, members[WEIGHTS])
    try:
        norms = norms_of(members[NORMS], directory / NORMS)
        files = {name.removeprefix(f"{REGISTRY_DIR}/"): members[name] for name in (REGISTRY_INDEX, *REGISTRY_FILES)}
        registries = registries_of(files, directory / REGISTRY_DIR)
    except (RegistryError, NormsError) as error:
        raise BundleRejected(f"bundle {directory}: {error}") from error
    _refuse_mix(directory, manifest, registries, norms)
    return Bundle(
        path=directory,
        manifest=manifest,
        manifest_digest=digest_of(members[MANIFEST]),
        network=_network(directory, manifest, weights),
        registries=registries,
        norms=norms,
        golden=_tensors(directory, GOLDEN, members[GOLDEN]),
    )


def resolve_once(path: Path) -> Path:
    """Return the directory that `path` names: itself, or what the one link `path` points at."""
    return path.parent / path.readlink() if path.is_symlink() else path


def _check(directory: Path, members: Mapping[str, bytes]) -> Manifest:
    """Check the manifest's digest and format and the digests of all members, and return the manifest."""
    data = members[MANIFEST]
    if members[MANIFEST_DIGEST] != digest_line(digest_of(data)):
        raise BundleRejected(
            f"bundle {directory}: {MANIFEST_DIGEST}: expected the digest of {MANIFEST} ({digest_of(data)}), "
            f"found {members[MANIFEST_DIGEST][:80]!r}; one of the two is damaged: copy or build the bundle again"
        )
    parse_object(data, directory / MANIFEST, BundleRejected)  # refuses what is no strict JSON, such as a key twice
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:20])
        raise BundleRejected(
            f"bundle {directory}: {MANIFEST} breaks its format at {places}; if another version of this project wrote it, "
            "train again, or serve it with that version"
        ) from error
    faults = [f"{name}: not listed in {MANIFEST}" for name in sorted(set(LISTED) - set(manifest.members))]
    faults += [f"{name}: listed in {MANIFEST}, but no member" for name in sorted(set(manifest.members) - set(LISTED))]
    for name in sorted(set(LISTED) & set(manifest.members)):
        listed, found = manifest.members[name], members[name]
        if (listed.size, listed.sha256) != (len(found), digest_of(found)):
            faults.append(
                f"{name}: expected {listed.size} bytes with digest {listed.sha256}, found {len(found)} with {digest_of(found)}"
            )
    if manifest.inputs.build_id != manifest.build_id:
        faults.append(f"{MANIFEST}: build_id: expected {manifest.inputs.build_id} by its inputs, found {manifest.build_id}")
    if faults:
        raise BundleRejected(f"bundle {directory}: " + "; ".join(faults) + ". Copy or build it again.")
    return manifest


def _refuse_mix(directory: Path, manifest: Manifest, registries: Registries, norms: Norms) -> None:
    """Refuse a bundle whose parts come from different builds."""
    faults = []
    for name, registry in registries.items():
        file = f"{REGISTRY_DIR}/{registry.spec.file}"
        part = manifest.registries.get(name)
        if part is None or (part.digest, part.capacity) != (registry.digest, registry.capacity):
            faults.append(f"{file}: expected {part}, found digest {registry.digest}, capacity {registry.capacity}")
        if manifest.inputs.registries.get(name) != registry.digest:
            faults.append(f"{file}: the build was made from {manifest.inputs.registries.get(name)}, found {registry.digest}")
    if not manifest.norms.digest == norms.digest == manifest.inputs.norms:
        expected = f"{manifest.norms.digest} by {MANIFEST}, {manifest.inputs.norms} by its inputs"
        faults.append(f"{NORMS}: expected digest {expected}, found {norms.digest}")
    if faults:
        raise BundleRejected(f"bundle {directory}: a mix of builds: " + "; ".join(faults))


def _tensors(directory: Path, name: str, data: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise BundleRejected(f"bundle {directory}: {name}: expected a safetensors file, found {error}") from error


def _network(directory: Path, manifest: Manifest, weights: Mapping[str, Tensor]) -> TamiyoGNN:
    """Return the network with its weights; every weight that is missing, extra or of another shape is listed."""
    blank = _blank(manifest.network)
    listed = {name: (tuple(spec.shape), spec.dtype) for name, spec in manifest.weights.items()}
    expected = {name: (tuple(t.shape), t.dtype) for name, t in blank.state_dict().items()}
    found = {name: (tuple(t.shape), t.dtype) for name, t in weights.items()}
    faults = [
        f"weight {name}: expected {expected.get(name)}, found {found.get(name)}"
        for name in sorted(set(expected) | set(found))
        if expected.get(name) != found.get(name)
    ]
    faults += [f"weight {name}: expected finite numbers" for name in sorted(found) if not _is_finite(weights[name])]
    shown = {name: (shape, dtype_name(dtype)) for name, (shape, dtype) in found.items()}
    faults += [
        f"weight {name}: expected {listed.get(name)} by {MANIFEST}, found {shown.get(name)}"
        for name in sorted(set(listed) | set(shown))
        if listed.get(name) != shown.get(name)
    ]
    if faults:
        raise BundleRejected(f"bundle {directory}: {WEIGHTS}: " + "; ".join(faults))
    return cast(TamiyoGNN, _filled(blank, weights, "", {}))


def _is_finite(tensor: Tensor) -> bool:
    """Return whether all numbers of a weight are finite; a dtype that torch can't test counts as finite."""
    if tensor.dtype in (torch.float64, torch.float32):  # many small tensors: NumPy takes a tenth of the time of torch
        return bool(np.isfinite(tensor.numpy()).all())
    return tensor.dtype not in _HALVES or bool(tensor.isfinite().all())


@lru_cache(maxsize=2)
def _blank(config: ModelConfig) -> TamiyoGNN:
    """Return the network of `config` in evaluation mode without values, on the meta device; it is never changed.

    Building it costs more than reading a bundle, and it depends on the configuration and the running code alone.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return TamiyoGNN(config).eval()


def _filled(blank: nn.Module, weights: Mapping[str, Tensor], prefix: str, made: dict[int, nn.Module]) -> nn.Module:
    """Return a copy of the module `blank` that holds `weights` (by name, without gradients) in place of what it lacks.

    `made` holds the copies of modules by id, so that a module that is used twice is copied once.
    """
    if id(blank) in made:
        return made[id(blank)]
    copied = made[id(blank)] = object.__new__(type(blank))
    own = {name: value.copy() if isinstance(value, dict | list | set) else value for name, value in vars(blank).items()}
    vars(copied).update(own)
    for name, parameter in blank._parameters.items():
        if parameter is not None:
            copied._parameters[name] = nn.Parameter(weights[prefix + name], requires_grad=False)
    for name, buffer in blank._buffers.items():
        if buffer is not None and name not in blank._non_persistent_buffers_set:  # those are constants of the code
            copied._buffers[name] = weights[prefix + name]
    for name, module in blank._modules.items():
        if module is not None:
            copied._modules[name] = _filled(module, weights, f"{prefix}{name}.", made)
    return copied
