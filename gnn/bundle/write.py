"""Write a bundle: stage every member beside the destination, put the digests in the manifest, then publish it whole."""

import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch_geometric
from torch import Tensor

from gnn.bundle.build_id import BuildInputs
from gnn.bundle.golden import choose, write_golden
from gnn.bundle.layout import batch_specs, node_specs, output_specs, relation_specs, weight_specs
from gnn.bundle.manifest import (
    CalibrationPart,
    DecisionPart,
    HeadPart,
    Manifest,
    Member,
    NormsPart,
    PolicyPart,
    RegistryPart,
    digest_of,
)
from gnn.bundle.members import CHECKPOINT, GOLDEN, MANIFEST, MANIFEST_DIGEST, NORMS, REGISTRY_INDEX, WEIGHTS, digest_line
from gnn.bundle.read import read_bundle
from gnn.graph.batch import GraphStore
from gnn.graph.distribution import Distribution, distributions
from gnn.model.trained import TrainedModel
from gnn.norms.published import Norms
from gnn.norms.published import from_json as read_norms
from gnn.registry.files import resolve
from gnn.registry.refresh import Registries
from gnn.registry.refresh import load as load_registries
from lake.durable.publish import beside, ensure_dir, lock, publish_dir, sweep, write_durable
from schemas.configuration import MODEL_NAME
from schemas.errors import BundleRejected
from schemas.kernels import KERNELS

BUNDLES = "bundles"
LOCK = ".lock"


def bundle_path(home: Path, build_id: str) -> Path:
    """Return the directory of the bundle of that build id in a home."""
    return home / BUNDLES / build_id


def is_published(home: Path, build_id: str) -> bool:
    """Return whether a sound bundle of that build id stands in the home (a damaged one does not count)."""
    try:
        return read_bundle(bundle_path(home, build_id)).build_id == build_id
    except BundleRejected:
        return False


def write_bundle(
    home: Path, trained: TrainedModel, *, registries: Path, norms: Path, dataset: GraphStore, inputs: BuildInputs
) -> Path:
    """Publish the bundle of `trained` under its build id and return its directory.

    `registries` is the published registry directory, `norms` the published `gnn_norms.json`, `dataset` the unscaled graphs.
    A sound bundle of this build id stays as it is; a damaged one is moved aside first.
    Raises BundleRejected if `inputs` names other registries or norms than those given.
    """
    found, scales = load_registries(registries), read_norms(norms)
    _refuse_mix(found, scales, inputs)
    build_id = inputs.build_id
    destination = bundle_path(home, build_id)
    members = _members(trained, found, scales, registries, norms, dataset)
    manifest = _manifest(trained, found, scales, inputs, members, distributions(dataset)).to_bytes()
    members |= {MANIFEST: manifest, MANIFEST_DIGEST: digest_line(digest_of(manifest))}
    with lock(destination.parent / LOCK):
        sweep(destination.parent)
        if is_published(home, build_id):
            return destination
        if destination.exists():
            destination.rename(beside(destination))
        temporary = beside(destination)
        for name, data in members.items():
            ensure_dir((temporary / name).parent)
            write_durable(temporary / name, data)
        publish_dir(temporary, destination)
        sweep(destination.parent)
    return destination


def _refuse_mix(registries: Registries, norms: Norms, inputs: BuildInputs) -> None:
    faults = [
        f"registry {name}: expected digest {inputs.registries.get(name)}, found {digest}"
        for name, digest in registries.digests().items()
        if inputs.registries.get(name) != digest
    ]
    if norms.digest != inputs.norms:
        faults.append(f"norms: expected digest {inputs.norms}, found {norms.digest}")
    if faults:
        raise BundleRejected("a mix of builds: " + "; ".join(faults) + ". Build features, model and bundle in one run.")


def weights_of(trained: TrainedModel) -> dict[str, Tensor]:
    """Return the weights by name, contiguous on the CPU, sorted by name."""
    state = trained.network.state_dict()
    return {name: state[name].detach().cpu().contiguous() for name in sorted(state)}


def _members(
    trained: TrainedModel, registries: Registries, norms: Norms, registry_dir: Path, norms_file: Path, dataset: GraphStore
) -> dict[str, bytes]:
    """Return the bytes of every member except the manifest and its digest."""
    weights = weights_of(trained)
    kernels = torch.tensor([kernel in trained.kernels for kernel in KERNELS])
    root = resolve(registry_dir)
    members = {
        WEIGHTS: safetensors.torch.save(weights),
        CHECKPOINT: _checkpoint(trained, weights, registries, norms),
        NORMS: norms_file.read_bytes(),
        GOLDEN: write_golden(trained.network, choose(dataset), kernels, norms.priors),
        REGISTRY_INDEX: (root / "index.json").read_bytes(),
    }
    return members | {f"registries/{r.spec.file}": (root / r.spec.file).read_bytes() for r in registries.values()}


def _checkpoint(trained: TrainedModel, weights: Mapping[str, Tensor], registries: Registries, norms: Norms) -> bytes:
    """Return the bytes of `tamiyo_gnn_v1.pt`: plain containers of tensors, numbers and text.

    `torch.load(weights_only=True)` accepts no other types.
    """
    buffer = io.BytesIO()
    content: dict[str, Any] = {
        "model": MODEL_NAME,
        "network": trained.network.config.model_dump(mode="json"),
        "weights": dict(weights),
        "registries": {name: dict(registry.entries) for name, registry in registries.items()},
        "norms": norms.to_object(),
        "kernels": list(KERNELS),
    }
    torch.save(content, buffer)
    return buffer.getvalue()


def _manifest(
    trained: TrainedModel,
    registries: Registries,
    norms: Norms,
    inputs: BuildInputs,
    members: Mapping[str, bytes],
    values: Mapping[str, Distribution],
) -> Manifest:
    calibration = trained.calibration
    heads = {n: HeadPart(trained=h.trained, labels=h.labels, reason=h.reason) for n, h in trained.heads.items()}
    return Manifest(
        schema_version=1,
        model=MODEL_NAME,
        build_id=inputs.build_id,
        inputs=inputs,
        node_types=node_specs(),
        relations=relation_specs(),
        tensors=batch_specs(),
        outputs=output_specs(heads),
        weights=weight_specs(weights_of(trained)),
        network=trained.network.config,
        registries={
            name: RegistryPart(version=r.version, digest=r.digest, capacity=r.capacity, size=len(r.entries))
            for name, r in registries.items()
        },
        norms=NormsPart(version=norms.version, digest=norms.digest),
        policy=_policy(trained, registries),
        calibration=CalibrationPart(
            risk_temperature=calibration.temperature,
            interval_level=calibration.level,
            interval_scale=calibration.scale,
            decision=DecisionPart(**asdict(calibration.rule)),
            examples=calibration.examples,
            missing=calibration.missing,
        ),
        heads=heads,
        versions={"torch": torch.__version__, "torch_geometric": torch_geometric.__version__},
        training=trained.summary,
        training_config=trained.config,
        distributions=dict(values),
        metrics=trained.metrics,
        metrics_missing=trained.metrics_missing,
        members={name: Member(sha256=digest_of(data), size=len(data)) for name, data in members.items()},
    )


def _policy(trained: TrainedModel, registries: Registries) -> PolicyPart:
    names = {index: key for key, index in registries["layer_type"].entries.items()}
    sites = {names[i]: list(kernels) for i, kernels in trained.site_kernels.items() if i in names}
    return PolicyPart(kernels=list(KERNELS), measured=list(trained.kernels), site_kernels=sites, horizon_steps=trained.horizon)
