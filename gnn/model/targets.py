"""Locate labels in graphs: which example belongs to which seed row and kernel column of which graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnn.graph.batch import GraphBatch, GraphIndex, GraphStore
from schemas.configuration import BLENDING_METHODS, RISK_CLASSES
from schemas.kernels import KERNEL_INDEX

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Labels:
    """P labels sorted by graph: rows of `training.examples`, and their graph, seed and kernel.

    `uplift` is NaN if it was not measured, `risk` is -1 if unknown, `weight` has mean one. `methods` [P, 4] is the uplift by
    blending method, NaN if a method was not measured.
    """

    example: Ints
    graph: Ints
    seed: Ints
    kernel: Ints
    uplift: Floats
    weight: Floats
    risk: Ints
    methods: Floats

    def __len__(self) -> int:
        return len(self.graph)

    def take(self, rows: Ints) -> "Labels":
        """Return those labels, in that order."""
        return Labels(**{name: values[rows] for name, values in vars(self).items()})

    def graphs(self) -> Ints:
        """Return the graphs that have a label, ascending."""
        return np.unique(self.graph)


def locate(store: GraphIndex, examples: pa.Table) -> tuple[Labels, int]:
    """Return the labels of `examples` in `store`, and the number of examples whose packet or seed is in no graph."""
    rows = examples.select(["training_run_id", "packet_id", "seed_id"]).to_pylist()
    graphs, seeds = np.full(len(rows), -1), np.full(len(rows), -1)
    known: dict[int, dict[str, int]] = {}
    for number, row in enumerate(rows):
        try:
            graph = store.index_of(row["training_run_id"], row["packet_id"])
        except KeyError:
            continue
        if graph not in known:
            known[graph] = {name: place for place, name in enumerate(store.element_ids("seed", graph))}
        graphs[number], seeds[number] = graph, known[graph].get(row["seed_id"], -1)
    found = np.flatnonzero(seeds >= 0)
    labels = _labels(examples, graphs, seeds).take(found)
    return labels.take(np.lexsort((labels.kernel, labels.seed, labels.graph))), len(rows) - len(found)


def _labels(examples: pa.Table, graphs: Ints, seeds: Ints) -> Labels:
    risks = {name: index for index, name in enumerate(RISK_CLASSES)}
    weight = examples["weight"].to_numpy()
    return Labels(
        example=np.arange(examples.num_rows),
        graph=graphs,
        seed=seeds,
        kernel=np.array([KERNEL_INDEX[name] for name in examples["kernel"].to_pylist()], dtype=np.int64),
        uplift=examples["u"].to_numpy(),
        weight=weight / weight.mean() if len(weight) else weight,
        risk=np.array([risks.get(name, -1) for name in examples["risk_class"].to_pylist()], dtype=np.int64),
        methods=_methods(examples["by_method"].to_pylist()),
    )


def _methods(rows: Sequence[Sequence[Mapping[str, Any]] | None]) -> Floats:
    found = np.full((len(rows), len(BLENDING_METHODS)), np.nan)
    for number, row in enumerate(rows):
        for entry in row or ():
            if entry["method"] in BLENDING_METHODS:
                found[number, BLENDING_METHODS.index(entry["method"])] = entry["u"]
    return found


@dataclass(frozen=True)
class Pairs:
    """P labels of a batch: `graph` and `seed` are numbers within the batch; the rest is as in `Labels`."""

    graph: Tensor
    seed: Tensor
    kernel: Tensor
    uplift: Tensor
    weight: Tensor
    risk: Tensor
    methods: Tensor

    def to(self, device: torch.device | str) -> Self:
        """Return the same labels (and batch, if any) on `device`."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor | GraphBatch)}
        return replace(self, **moved)


@dataclass(frozen=True)
class LabelledBatch(Pairs):
    """A batch of graphs with its labels; `example` are the labels' rows of `training.examples`."""

    batch: GraphBatch
    example: Ints


def collate(store: GraphStore, labels: Labels, graphs: Sequence[int]) -> LabelledBatch:
    """Return those graphs and all of their labels."""
    batch = store.batch(graphs)
    starts = np.searchsorted(labels.graph, graphs, side="left")
    ends = np.searchsorted(labels.graph, graphs, side="right")
    rows = np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)]).astype(np.int64)
    place = np.repeat(np.arange(len(graphs)), ends - starts)
    chosen = labels.take(rows)
    offsets = batch.ptr["seed"].numpy()[place]
    return LabelledBatch(
        batch=batch,
        example=chosen.example,
        graph=torch.from_numpy(place),
        seed=torch.from_numpy(chosen.seed + offsets),
        kernel=torch.from_numpy(chosen.kernel),
        uplift=torch.from_numpy(chosen.uplift.astype(np.float32)),
        weight=torch.from_numpy(chosen.weight.astype(np.float32)),
        risk=torch.from_numpy(chosen.risk),
        methods=torch.from_numpy(chosen.methods.astype(np.float32)),
    )
