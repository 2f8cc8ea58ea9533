"""One whole training: labels, split, baselines, network, calibration, evaluation. The entry point of the pipeline."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch_geometric

from gnn.graph.batch import GraphStore
from gnn.model.alongside import alongside
from gnn.model.baselines import Boosting, Ridge, constant
from gnn.model.checkpoint import Checkpoints
from gnn.model.predictions import Predictions, predict
from gnn.model.priors import kernel_priors
from gnn.model.report import Comparison, report
from gnn.model.site import flat_features
from gnn.model.targets import Labels, locate
from gnn.model.trained import HeadStatus, TrainedModel
from gnn.model.training import Fitted, Progress, fit
from schemas.configuration import ModelConfig, TrainingConfig
from schemas.features import LAYER
from schemas.kernels import KERNELS

SPLITS = ("train", "validation", "test", "held_out")


@dataclass(frozen=True)
class Problem:
    """The labelled graphs of one training by split, at one horizon."""

    store: GraphStore
    examples: pa.Table
    horizon: int | None
    splits: dict[str, Labels]
    unplaced: int


def train(
    dataset: GraphStore,
    examples: pa.Table,
    config: TrainingConfig,
    checkpoint_dir: Path | None = None,
    progress: Progress | None = None,
    unusable: Mapping[str, int] | None = None,
    processes: int = 1,
) -> TrainedModel:
    """Train, calibrate and evaluate TamiyoGNN beside its baselines; deterministic and resumable.

    `examples` is `training.examples`, `unusable` the reports that gave no label, by reason. A required head without a
    label stays untrained and is marked so; nothing is raised for it. With more than one of the `processes`, and a
    checkpoint directory, the ablation without messages is trained beside the model: the same weights in less time.
    """
    problem = pose(dataset, examples, config)
    heads = head_status(problem.splits["train"], unusable or {})
    silent = config.model.model_copy(update={"messages": False})
    worthwhile = processes > 1 and config.no_messages and checkpoint_dir is not None and _has_labels(problem)
    with alongside(_fit, problem, config, silent, checkpoint_dir, "no_messages", wanted=worthwhile) as wait:
        fitted = _fit(problem, config, config.model, checkpoint_dir, "model", progress)
        wait()
        comparison = _compare(problem, config, fitted, checkpoint_dir, progress)
    result = report(comparison, examples, config)
    train_labels = problem.splits["train"]
    return TrainedModel(
        network=fitted.network,
        config=config,
        horizon=problem.horizon,
        heads=heads,
        kernels=tuple(KERNELS[k] for k in np.unique(train_labels.kernel)),
        site_kernels=site_kernels(dataset, train_labels),
        calibration=result.calibration,
        metrics=result.metrics,
        metrics_missing=result.missing,
        summary=_summary(problem, fitted, unusable or {}),
        history=fitted.history,
        tables={"training.examples": examples} | result.tables,
    )


def pose(store: GraphStore, examples: pa.Table, config: TrainingConfig) -> Problem:
    """Choose the horizon and place its examples in the graphs, split by split."""
    horizon = config.horizon if config.horizon is not None else usual_horizon(examples)
    at = np.flatnonzero(examples["horizon"].to_numpy() == horizon)
    labels, unplaced = locate(store, examples.take(at))
    labels = Labels(**(vars(labels) | {"example": at[labels.example]}))
    split = np.array(examples["split"].to_pylist(), dtype=str)[labels.example] if len(labels) else np.zeros(0, dtype=str)
    return Problem(store, examples, horizon, {name: labels.take(np.flatnonzero(split == name)) for name in SPLITS}, unplaced)


def usual_horizon(examples: pa.Table) -> int | None:
    """The horizon with the most measured uplifts, the longest of equals; None where nothing was measured."""
    counts = pc.value_counts(examples.filter(pc.is_valid(examples["u"]))["horizon"].combine_chunks()).to_pylist()
    return max(((row["counts"], row["values"]) for row in counts), default=(0, None))[1]


def head_status(labels: Labels, unusable: Mapping[str, int]) -> dict[str, HeadStatus]:
    """Which heads have labels on training hosts. One kernel alone in a state is no label of the policy."""
    known = np.isfinite(labels.uplift)
    _, counts = np.unique(labels.graph[known], return_counts=True)
    several = int((np.isfinite(labels.methods).sum(1) > 1).sum())
    found = {"policy": int(counts[counts > 1].sum()), "value": int(known.sum()), "risk": int((labels.risk >= 0).sum())}
    why = "; ".join(f"{count} reports: {reason}" for reason, count in sorted(unusable.items())) or "no field reports"
    heads = {name: HeadStatus(n > 0, n, None if n else f"no usable label ({why})") for name, n in found.items()}
    heads["blending"] = HeadStatus(several > 0, several, None if several else "no graft was measured with two blending methods")
    for name in ("params", "schedule", "breaker"):
        heads[name] = HeadStatus(False, 0, "no measured outcome names its target")
    heads["telemetry"] = HeadStatus(False, 0, "a projection, not a target")
    return heads


def site_kernels(store: GraphStore, labels: Labels) -> dict[int, tuple[str, ...]]:
    """Kernels measured on training hosts by the layer_type id of the first layer that their seed monitors."""
    column = [feature.name for feature in LAYER.categorical].index("layer_type")
    found: dict[int, set[int]] = {}
    for graph in labels.graphs().tolist():
        batch = store.batch([graph])
        seeds, layers = batch.edge_index[("seed", "monitors", "layer")].numpy()
        types = batch.ids["layer"][:, column].numpy()
        for row in np.flatnonzero(labels.graph == graph):
            for layer in layers[seeds == labels.seed[row]][:1]:
                found.setdefault(int(types[layer]), set()).add(int(labels.kernel[row]))
    return {kind: tuple(KERNELS[k] for k in sorted(found[kind])) for kind in sorted(found)}


def fingerprint(problem: Problem, config: TrainingConfig, model: ModelConfig) -> str:
    """Digest of everything that decides the weights: configuration, labels, graphs of the labels, versions."""
    digest = hashlib.sha256()
    digest.update(config.model_dump_json().encode() + model.model_dump_json().encode())
    digest.update(f"{torch.__version__} {torch_geometric.__version__}".encode())
    for name in SPLITS:
        labels = problem.splits[name]
        for column in vars(labels).values():
            digest.update(np.ascontiguousarray(column).tobytes())
        for graph in labels.graphs().tolist():
            batch = problem.store.batch([graph])
            for part in (batch.x, batch.ids, batch.edge_index, batch.edge_attr, batch.edge_ids):
                for tensor in part.values():
                    digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _fit(
    problem: Problem,
    config: TrainingConfig,
    model: ModelConfig,
    checkpoint_dir: Path | None,
    name: str,
    progress: Progress | None,
) -> Fitted:
    """Fit one network; with a checkpoint directory, on from the checkpoint of that name."""
    path = checkpoint_dir / f"{name}.pt" if checkpoint_dir is not None else None
    checkpoints = Checkpoints(path, fingerprint(problem, config, model), config.checkpoint_seconds)
    return fit(problem.store, problem.splits["train"], problem.splits["validation"], config, model, checkpoints, progress)


def _compare(
    problem: Problem, config: TrainingConfig, fitted: Fitted, checkpoint_dir: Path | None, progress: Progress | None
) -> Comparison:
    """Predictions of the network and of every baseline on every split."""
    train, splits = problem.splits["train"], problem.splits
    found: dict[str, dict[str, Predictions]] = {name: {} for name in splits}
    skipped: dict[str, str] = {}

    def add(name: str, on: Any) -> None:
        for split, labels in splits.items():
            found[split][name] = on(labels)

    size = config.batch_graphs
    add("model", lambda labels: predict(fitted.network, problem.store, labels, size))
    if not _has_labels(problem):
        return Comparison(splits, found, dict.fromkeys(("no_messages", "ridge", "boosting", "best_constant"), NO_LABELS))
    priors = kernel_priors(train)
    add("best_constant", lambda labels: constant(priors, labels.kernel, config.tau))
    flat = {name: flat_features(problem.store, labels, size) for name, labels in splits.items()}
    hosts = np.array(problem.examples["host"].to_pylist(), dtype=str)[train.example]
    ridge = Ridge(flat["train"], train, hosts)
    for split, labels in splits.items():
        found[split]["ridge"] = ridge(flat[split], labels.kernel, config.tau)
    if config.boosting:
        boosting = Boosting(flat["train"], train, config.seed)
        for split, labels in splits.items():
            found[split]["boosting"] = boosting(flat[split], labels.kernel, config.tau)
    else:
        skipped["boosting"] = "switched off by configuration"
    if config.no_messages:
        silent = config.model.model_copy(update={"messages": False})
        alone = _fit(problem, config, silent, checkpoint_dir, "no_messages", progress)
        add("no_messages", lambda labels: predict(alone.network, problem.store, labels, size))
    else:
        skipped["no_messages"] = "switched off by configuration"
    return Comparison(splits, found, skipped)


def _has_labels(problem: Problem) -> bool:
    return int(np.isfinite(problem.splits["train"].uplift).sum()) > 1


NO_LABELS = "no measured uplift on training hosts"


def _summary(problem: Problem, fitted: Fitted, unusable: Mapping[str, int]) -> dict[str, Any]:
    hosts = np.array(problem.examples["host"].to_pylist(), dtype=str)
    return {
        "horizon_steps": problem.horizon,
        "hosts": {name: len(np.unique(hosts[labels.example])) for name, labels in problem.splits.items()},
        "examples": {name: len(labels) for name, labels in problem.splits.items()},
        "graphs": {name: len(labels.graphs()) for name, labels in problem.splits.items()},
        "unusable_reports": dict(unusable),
        "examples_without_a_graph": problem.unplaced,
        "epochs": fitted.epochs,
        "best_epoch": fitted.best_epoch,
    }
