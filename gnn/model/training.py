"""Fitting one network: seeded, one thread, the same weights every time, and resumable after any kill."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from gnn.graph.batch import GraphBatch, GraphStore
from gnn.model.checkpoint import Checkpoints
from gnn.model.losses import LossScale, total_loss
from gnn.model.network import TamiyoGNN
from gnn.model.priors import kernel_priors, start_from
from gnn.model.targets import LabelledBatch, Labels, collate
from schemas.artifacts import REGISTRIES
from schemas.configuration import ModelConfig, TrainingConfig
from schemas.features import NODE_TYPES

Progress = Callable[[str, int, int], None]
IDENTITY = ("seed_id", "blueprint_id")


@dataclass(frozen=True)
class Fitted:
    """A trained network in evaluation mode, its loss scale, the epoch that it was taken from and the curve."""

    network: TamiyoGNN
    scale: LossScale
    best_epoch: int
    epochs: int
    history: tuple[dict[str, float], ...]


@dataclass
class _Run:
    """Everything that a checkpoint must hold for the rest to be the same as without a stop."""

    network: TamiyoGNN
    optimizer: torch.optim.AdamW
    average: dict[str, Tensor]
    best: dict[str, Tensor]
    best_loss: float = float("inf")
    best_epoch: int = -1
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def is_over(self, epochs: int, patience: int) -> bool:
        return self.epoch >= epochs or self.epoch - max(self.best_epoch, 0) > patience

    def state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "best": self.best,
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "epoch": self.epoch,
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.best = state["average"], state["best"]
        self.best_loss, self.best_epoch = state["best_loss"], state["best_epoch"]
        self.epoch, self.history = state["epoch"], state["history"]


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Run with that many threads and deterministic kernels, then give the process its own settings back."""
    before, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(strict)


def fit(
    store: GraphStore,
    train: Labels,
    validation: Labels,
    config: TrainingConfig,
    model: ModelConfig,
    checkpoints: Checkpoints,
    progress: Progress | None = None,
) -> Fitted:
    """Train on `train`, stop early on `validation`; without validation labels all epochs are run and the last is kept."""
    with reproducible(config.threads):
        torch.manual_seed(config.seed)
        network = TamiyoGNN(model)
        priors = kernel_priors(train)
        start_from(network, priors, config.tau)
        if len(train):
            network.fit_inputs(store.batch(train.graphs().tolist()))
        scale = LossScale(config.tau, priors.spread)
        run = _start(network, config)
        saved = checkpoints.load()
        if saved is not None:
            run.restore(saved)
        held = _batches(store, validation, config)
        epochs = planned_epochs(len(train.graphs()), config) if len(train) else 0
        while not run.is_over(epochs, config.patience):
            _epoch(run, store, train, config, scale)
            _judge(run, held, config, scale)
            checkpoints.save(run.state(), last=run.is_over(epochs, config.patience))
            if progress is not None:
                progress("training", run.epoch, epochs)
        network.load_state_dict(run.best)
    return Fitted(network.eval(), scale, run.best_epoch, run.epoch, tuple(run.history))


def planned_epochs(graphs: int, config: TrainingConfig) -> int:
    """Epochs within the configured bound on optimizer steps, at least one."""
    steps = max(1, -(-graphs // config.batch_graphs))
    return max(1, min(config.epochs, config.steps // steps))


def _start(network: TamiyoGNN, config: TrainingConfig) -> _Run:
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    average = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    return _Run(network, optimizer, average, dict(average))


def _epoch(run: _Run, store: GraphStore, labels: Labels, config: TrainingConfig, scale: LossScale) -> None:
    # every epoch has its own seed, so a resumed run draws what an unbroken one would have drawn
    torch.manual_seed(config.seed * 100_003 + run.epoch)
    run.network.train()
    order = labels.graphs()[torch.randperm(len(labels.graphs())).numpy()]
    for start in range(0, len(order), config.batch_graphs):
        batch = collate(store, labels, order[start : start + config.batch_graphs].tolist())
        batch = replace(batch, batch=drop_ids(batch.batch, config))
        loss = total_loss(run.network(batch.batch), batch, config.weights, scale)["total"]
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(run.network.parameters(), config.clip)
        run.optimizer.step()
        with torch.no_grad():
            fresh = run.network.state_dict()
            torch._foreach_lerp_(list(run.average.values()), [fresh[name] for name in run.average], 1.0 - config.average)
    run.epoch += 1


def _judge(run: _Run, held: list[LabelledBatch], config: TrainingConfig, scale: LossScale) -> None:
    """Loss of the averaged weights on validation hosts; the best so far are kept."""
    losses = _evaluate(run, held, config, scale)
    run.history.append({"epoch": float(run.epoch)} | losses)
    if losses.get("total", -float(run.epoch)) < run.best_loss:
        run.best_loss = losses.get("total", -float(run.epoch))
        run.best_epoch = run.epoch
        run.best = {name: tensor.clone() for name, tensor in run.average.items()}


@torch.no_grad()
def _evaluate(run: _Run, held: list[LabelledBatch], config: TrainingConfig, scale: LossScale) -> dict[str, float]:
    if not held:
        return {}
    current = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
    run.network.load_state_dict(run.average)
    run.network.eval()
    sums: dict[str, float] = {}
    total = sum(len(batch.example) for batch in held)
    for batch in held:
        for name, loss in total_loss(run.network(batch.batch), batch, config.weights, scale).items():
            sums[name] = sums.get(name, 0.0) + float(loss) * len(batch.example) / total
    run.network.load_state_dict(current)
    return sums


def _batches(store: GraphStore, labels: Labels, config: TrainingConfig) -> list[LabelledBatch]:
    graphs, size = labels.graphs().tolist(), config.batch_graphs
    return [collate(store, labels, graphs[start : start + size]) for start in range(0, len(graphs), size)]


def drop_ids(batch: GraphBatch, config: TrainingConfig) -> GraphBatch:
    """Replace some ids by missing or unknown, so that both rows of every table are trained.

    Identities (seed, blueprint) are replaced more often: hosts to come have ids that training never saw.
    """
    ids = {}
    for node in NODE_TYPES:
        table = batch.ids[node.name].clone()
        for column, feature in enumerate(node.categorical):
            share = config.identity_dropout if feature.name in IDENTITY else config.id_dropout
            draw = torch.rand(len(table))
            table[draw < share, column] = REGISTRIES[str(feature.registry)].unknown
            table[draw < share / 2, column] = 0
        ids[node.name] = table
    return replace(batch, ids=ids)
