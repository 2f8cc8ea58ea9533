"""Describe the running code's inputs and outputs in the manifest's terms, for comparison with a bundle's manifest."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from gnn.bundle.manifest import FeatureSpec, GroupSpec, HeadPart, OutputSpec, RelationSpec, TensorSpec
from gnn.graph.batch import GraphBatch
from gnn.model.outputs import OUTPUT_SHAPES
from schemas.features import NODE_TYPES, RELATIONS, FeatureGroup, Kind


def node_specs() -> dict[str, GroupSpec]:
    """Return the node types of the running code, by name."""
    return {node.name: GroupSpec(features=_features(node)) for node in NODE_TYPES}


def relation_specs() -> dict[str, RelationSpec]:
    """Return the relations of the running code, by short name."""
    return {r.short: RelationSpec(source=r.source, name=r.name, target=r.target, features=_features(r)) for r in RELATIONS}


def _features(group: FeatureGroup) -> list[FeatureSpec]:
    return [
        FeatureSpec(
            name=f.name,
            dtype="int64" if f.kind is Kind.CATEGORICAL else "float32",
            kind=f.kind.value,
            transform=f.transform.value,
            width=f.channels,
            registry=f.registry,
            mandatory=f.mandatory,
            neutral=f.neutral,
        )
        for f in group.features
    ]


def batch_specs() -> dict[str, TensorSpec]:
    """Return the expected shape and dtype of every tensor of a `GraphBatch`."""
    found: dict[str, TensorSpec] = {}
    for node in NODE_TYPES:
        found[f"x.{node.name}"] = TensorSpec(shape=["N", node.width], dtype="float32")
        found[f"ids.{node.name}"] = TensorSpec(shape=["N", len(node.categorical)], dtype="int64")
    for r in RELATIONS:
        found[f"edge_index.{r.short}"] = TensorSpec(shape=[2, "E"], dtype="int64")
        found[f"edge_attr.{r.short}"] = TensorSpec(shape=["E", r.width], dtype="float32")
        found[f"edge_ids.{r.short}"] = TensorSpec(shape=["E", len(r.categorical)], dtype="int64")
    return found


HEADS: Final[Mapping[str, str]] = {
    "policy_logits": "policy",
    "policy_params": "params",
    "risk_logits": "risk",
    "value": "value",
    "value_log_var": "value",
    "blending_logits": "blending",
    "schedule_params": "schedule",
    "telemetry_embedding": "telemetry",
    "breaker_logits": "breaker",
    "seed_policy_logits": "policy",
    "seed_value": "value",
    "seed_value_log_var": "value",
    "seed_risk_logits": "risk",
    "seed_scores": "policy",
}  # the head whose labels train each output
UNLABELLED: Final = "no measured outcome names its target"


def output_specs(heads: Mapping[str, HeadPart]) -> dict[str, OutputSpec]:
    """Return the shape and dtype of every output, and whether it was trained.

    An output is trained if its head has labels, or if it trains with the trunk and any head has labels.
    """
    return {name: _output(name, heads) for name in OUTPUT_SHAPES}


def _output(name: str, heads: Mapping[str, HeadPart]) -> OutputSpec:
    trained, reason = False, UNLABELLED
    if name in HEADS:
        trained, reason = heads[HEADS[name]].trained, heads[HEADS[name]].reason or ""
    elif name == "compile_embedding":  # trained through the trunk, by the labels of any head
        trained, reason = any(head.trained for head in heads.values()), "no head has a label"
    return OutputSpec(shape=list(OUTPUT_SHAPES[name]), dtype="float32", trained=trained, reason=None if trained else reason)


def weight_specs(weights: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    """Return the shape and dtype of every weight."""
    return {name: TensorSpec(shape=list(t.shape), dtype=dtype_name(t.dtype)) for name, t in weights.items()}


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype: `float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def batch_tensors(batch: GraphBatch) -> dict[str, Tensor]:
    """Return the tensors of a batch by the names of `batch_specs`.

    Its offsets are named `ptr.<node type>` and `edge_ptr.<relation>`.
    """
    found: dict[str, Tensor] = {}
    for node in NODE_TYPES:
        name = node.name
        found |= {f"x.{name}": batch.x[name], f"ids.{name}": batch.ids[name], f"ptr.{name}": batch.ptr[name]}
    for r in RELATIONS:
        found[f"edge_index.{r.short}"] = batch.edge_index[r.triple]
        found[f"edge_attr.{r.short}"] = batch.edge_attr[r.triple]
        found[f"edge_ids.{r.short}"] = batch.edge_ids[r.triple]
        found[f"edge_ptr.{r.short}"] = batch.edge_ptr[r.triple]
    return found


def batch_from(tensors: Mapping[str, Tensor], graphs: int) -> GraphBatch:
    """Return the batch of `graphs` graphs that `batch_tensors` took apart.

    Raises KeyError, which names an absent tensor.
    """
    return GraphBatch(
        num_graphs=graphs,
        x={n.name: tensors[f"x.{n.name}"] for n in NODE_TYPES},
        ids={n.name: tensors[f"ids.{n.name}"] for n in NODE_TYPES},
        ptr={n.name: tensors[f"ptr.{n.name}"] for n in NODE_TYPES},
        edge_index={r.triple: tensors[f"edge_index.{r.short}"] for r in RELATIONS},
        edge_attr={r.triple: tensors[f"edge_attr.{r.short}"] for r in RELATIONS},
        edge_ids={r.triple: tensors[f"edge_ids.{r.short}"] for r in RELATIONS},
        edge_ptr={r.triple: tensors[f"edge_ptr.{r.short}"] for r in RELATIONS},
    )


def blank_batch() -> GraphBatch:
    """Return one graph without nodes: the golden input of a build that has no graphs."""
    widths = {node.name: node for node in NODE_TYPES}
    none = torch.zeros(2, dtype=torch.int64)
    return GraphBatch(
        num_graphs=1,
        x={name: torch.zeros(0, node.width) for name, node in widths.items()},
        ids={name: torch.zeros(0, len(node.categorical), dtype=torch.int64) for name, node in widths.items()},
        ptr=dict.fromkeys(widths, none),
        edge_index={r.triple: torch.zeros(2, 0, dtype=torch.int64) for r in RELATIONS},
        edge_attr={r.triple: torch.zeros(0, r.width) for r in RELATIONS},
        edge_ids={r.triple: torch.zeros(0, len(r.categorical), dtype=torch.int64) for r in RELATIONS},
        edge_ptr={r.triple: none for r in RELATIONS},
    )
