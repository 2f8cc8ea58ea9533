"""Check a bundle against the running code, the serving bundle and live graphs, and report all mismatches at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gnn.bundle.golden import answer, differences
from gnn.bundle.layout import HEADS, batch_specs, batch_tensors, dtype_name, node_specs, output_specs, relation_specs
from gnn.bundle.manifest import FeatureSpec, GroupSpec, Manifest, OutputSpec, RelationSpec, TensorSpec
from gnn.bundle.read import Bundle, read_bundle
from gnn.graph.batch import GraphBatch, joined
from schemas.artifacts import REGISTRIES
from schemas.errors import BundleRejected, FeatureError
from schemas.kernels import KERNELS


@dataclass(frozen=True)
class Mismatch:
    """One thing that differs: where, what was expected, what was found."""

    where: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True)
class PreflightReport:
    """The outcome of a preflight; `bundle` is None if it could not be read."""

    path: Path
    bundle: Bundle | None
    mismatches: tuple[Mismatch, ...]

    @property
    def clean(self) -> bool:
        """Whether the bundle may serve."""
        return not self.mismatches

    def to_object(self) -> dict[str, Any]:
        """Return the report as plain JSON values, for `--json`."""
        build_id = self.bundle.build_id if self.bundle is not None else None
        return {
            "path": str(self.path),
            "build_id": build_id,
            "clean": self.clean,
            "mismatches": [vars(m) for m in self.mismatches],
        }


def preflight(
    path: Path, serving: Bundle | None = None, batch: GraphBatch | Sequence[GraphBatch] | None = None
) -> PreflightReport:
    """Check the bytes of the bundle at `path`, and compare it with the running code.

    `serving`, if given, is the serving bundle to compare it with.
    `batch`, if given, holds unscaled graphs of recent decisions, in one batch or several.
    """
    try:
        bundle = read_bundle(path)
    except BundleRejected as error:
        return PreflightReport(path, None, (Mismatch("bundle", "a sound bundle", str(error)),))
    found = [*_against_code(bundle.manifest), *_golden(bundle)]
    if serving is not None:
        found += _against_serving(bundle, serving)
    found += _against_live(bundle, [batch] if isinstance(batch, GraphBatch) else list(batch or ()))
    return PreflightReport(path, bundle, tuple(dict.fromkeys(found)))


def _against_code(manifest: Manifest) -> list[Mismatch]:
    found = _groups("node type", node_specs(), manifest.node_types)
    found += _groups("relation", relation_specs(), manifest.relations)
    found += _tensor_specs("tensor", batch_specs(), manifest.tensors)
    heads = set(HEADS.values())
    if heads == manifest.heads.keys():
        found += _tensor_specs("output", output_specs(manifest.heads), manifest.outputs)
    else:
        found.append(Mismatch("heads", ", ".join(sorted(heads)), ", ".join(sorted(manifest.heads))))
    found += _kernels(KERNELS, manifest)
    for name, spec in REGISTRIES.items():
        part = manifest.registries.get(name)
        if part is None or part.capacity != spec.capacity:
            found.append(Mismatch(f"registry {name}", f"capacity {spec.capacity}", str(part and part.capacity)))
    return found


def _kernels(expected: tuple[str, ...], manifest: Manifest) -> list[Mismatch]:
    pairs = enumerate(zip(expected, manifest.policy.kernels, strict=True))
    return [Mismatch(f"kernel {column}", want, have) for column, (want, have) in pairs if want != have]


def _groups(what: str, expected: Mapping[str, GroupSpec], found: Mapping[str, GroupSpec]) -> list[Mismatch]:
    faults = []
    for name in [*expected, *(n for n in found if n not in expected)]:
        want, have = expected.get(name), found.get(name)
        if want is None or have is None:
            faults.append(Mismatch(f"{what} {name}", _known(want), _known(have)))
            continue
        faults += _features(f"{what} {name}", want.features, have.features)
        if _ends(want) != _ends(have):
            faults.append(Mismatch(f"{what} {name}", _ends(want), _ends(have)))
    return faults


def _features(where: str, expected: list[FeatureSpec], found: list[FeatureSpec]) -> list[Mismatch]:
    faults = []
    for place in range(max(len(expected), len(found))):
        want = expected[place] if place < len(expected) else None
        have = found[place] if place < len(found) else None
        if want == have:
            continue
        if want is None or have is None or want.name != have.name:
            names = [f.name if f is not None else "nothing" for f in (want, have)]
            faults.append(Mismatch(f"{where}, place {place}", names[0], names[1]))
            continue
        changed = [key for key, value in want.model_dump().items() if getattr(have, key) != value]
        faults += [Mismatch(f"{where}.{want.name}, {key}", str(getattr(want, key)), str(getattr(have, key))) for key in changed]
    return faults


def _ends(spec: GroupSpec) -> str:
    return f"{spec.source}-{spec.name}-{spec.target}" if isinstance(spec, RelationSpec) else ""


def _known(spec: GroupSpec | None) -> str:
    return "nothing" if spec is None else f"{len(spec.features)} features"


def _tensor_specs(what: str, expected: Mapping[str, TensorSpec], found: Mapping[str, TensorSpec]) -> list[Mismatch]:
    names = [*expected, *(n for n in found if n not in expected)]
    return [
        Mismatch(f"{what} {name}", _shown(expected.get(name)), _shown(found.get(name)))
        for name in names
        if expected.get(name) != found.get(name)
    ]


def _shown(spec: TensorSpec | None) -> str:
    if spec is None:
        return "nothing"
    trained = f", trained: {spec.trained} ({spec.reason})" if isinstance(spec, OutputSpec) else ""
    return f"{spec.dtype} {spec.shape}{trained}"


def _golden(bundle: Bundle) -> list[Mismatch]:
    try:
        faults = differences(bundle.network, bundle.golden, bundle.norms.priors)
    except KeyError as error:
        return [Mismatch("golden", f"a tensor {error}", "nothing")]
    except (FeatureError, RuntimeError, IndexError) as error:
        return [Mismatch("golden", "graphs that this code takes", str(error))]
    return [Mismatch(f"golden output {name}", "the recorded answer", fault) for name, fault in faults.items()]


def _against_serving(bundle: Bundle, serving: Bundle) -> list[Mismatch]:
    """Compare a bundle with the serving one: a registry may grow; a moved index, kernel order or layout is a mismatch."""
    theirs = serving.manifest
    found = _groups("serving node type", theirs.node_types, bundle.manifest.node_types)
    found += _groups("serving relation", theirs.relations, bundle.manifest.relations)
    found += _kernels(tuple(theirs.policy.kernels), bundle.manifest)
    for name, registry in serving.registries.items():
        entries = bundle.registries[name].entries
        for key, index in registry.entries.items():
            if entries.get(key) != index:
                found.append(Mismatch(f"registry {name}, key {key!r}", f"index {index} as it serves", str(entries.get(key))))
    return found


def _against_live(bundle: Bundle, graphs: list[GraphBatch]) -> list[Mismatch]:
    """Compare live graphs with the bundle's layout, and have its network answer those that fit, all of them in one batch.

    If that fails, each graph is answered alone, so that what is reported is a fault of some graph by itself.
    """
    misfits = [_against_batch(bundle.manifest, graph) for graph in graphs]
    fitting = [graph for graph, faults in zip(graphs, misfits, strict=True) if not faults and _is_measured(graph)]
    found = [fault for faults in misfits for fault in faults]
    if len(fitting) > 1 and not _unanswered(bundle, joined(fitting)):
        return found
    return found + [fault for graph in fitting for fault in _unanswered(bundle, graph)]


def _is_measured(batch: GraphBatch) -> bool:
    """Return whether all inputs are finite; an answer to others is no fault of the bundle."""
    return all(np.isfinite(values.numpy()).all() for values in (*batch.x.values(), *batch.edge_attr.values()))


def _against_batch(manifest: Manifest, batch: GraphBatch) -> list[Mismatch]:
    tensors = batch_tensors(batch)
    found = []
    for name, spec in manifest.tensors.items():
        tensor = tensors.get(name)
        sound = tensor is not None and dtype_name(tensor.dtype) == spec.dtype and tensor.ndim == len(spec.shape)
        sizes = list(tensor.shape) if tensor is not None else []
        if not sound or any(isinstance(want, int) and want != have for want, have in zip(spec.shape, sizes, strict=False)):
            shown = "nothing" if tensor is None else f"{dtype_name(tensor.dtype)} {sizes}"
            found.append(Mismatch(f"live batch {name}", _shown(spec), shown))
    return found


def _unanswered(bundle: Bundle, batch: GraphBatch) -> list[Mismatch]:
    """Return the faults of the bundle's network on live graphs: graphs that it refuses, and outputs that are not finite.

    The layout of the graphs must fit, and their inputs must be finite.
    """
    kernels = torch.ones(len(KERNELS), dtype=torch.bool)
    try:
        outputs = answer(bundle.network, batch, kernels, bundle.norms.priors)
    except (FeatureError, RuntimeError, IndexError) as error:
        return [Mismatch("live graphs", "graphs that this network takes", str(error))]
    return [
        Mismatch(f"live output {name}", "finite numbers", f"{int((~tensor.isfinite()).sum())} that are not")
        for name, tensor in outputs.items()
        if not np.isfinite(tensor.numpy()).all()
    ]
