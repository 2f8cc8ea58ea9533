"""Fit one network: seeded, with the same weights every time, and resumable after any kill.

The rounds learn together with the heads for some epochs. Then their averaged weights are frozen and the heads' inputs are
computed once per graph, so that the many epochs that the small heads need are cheap.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gnn.graph.batch import GraphBatch, GraphStore
from gnn.model.checkpoint import Checkpoints
from gnn.model.losses import LossScale, total_loss
from gnn.model.network import Read, TamiyoGNN
from gnn.model.priors import kernel_priors, start_from
from gnn.model.targets import Ints, Labels, Pairs, collate
from schemas.artifacts import REGISTRIES
from schemas.configuration import RISK_CLASSES, ModelConfig, TrainingConfig
from schemas.features import GROUPS, NodeType

Progress = Callable[[str, int, int], None]
IDENTITY = ("seed_id", "blueprint_id")
_WORST = len(RISK_CLASSES) - 1
_READ_GRAPHS = 256  # graphs whose readouts are computed at once


@dataclass(frozen=True)
class Fitted:
    """A trained network in evaluation mode on the CPU, its loss scale, the number of epochs, and the loss curve."""

    network: TamiyoGNN
    scale: LossScale
    best_epoch: int
    epochs: int
    history: tuple[dict[str, float], ...]


@dataclass
class _Run:
    """Everything that a checkpoint must hold so that a resumed training gives the same result."""

    network: TamiyoGNN
    optimizer: torch.optim.AdamW
    average: dict[str, Tensor]
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "epoch": self.epoch,
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, tensor in self.average.items():
            tensor.copy_(state["average"][name])
        self.epoch, self.history = state["epoch"], state["history"]

    @cached_property
    def learning(self) -> list[nn.Parameter]:
        """The parameters that are still trained."""
        return [p for p in self.network.parameters() if p.requires_grad]

    @cached_property
    def averages(self) -> list[Tensor]:
        """The averaged weights of the parameters in `learning`, in that order."""
        return [self.average[name] for name, p in self.network.named_parameters() if p.requires_grad]

    @torch.no_grad()
    def keep_average(self, decay: float) -> None:
        """Move the averaged weights towards the current ones."""
        torch._foreach_lerp_(self.averages, [p.detach() for p in self.learning], 1.0 - decay)

    @torch.no_grad()
    def take_average(self, modules: list[nn.Module]) -> None:
        """Replace those modules' weights with the averaged ones, and stop training them."""
        frozen = {id(p) for module in modules for p in module.parameters()}
        for name, parameter in self.network.named_parameters():
            if id(parameter) in frozen:
                parameter.copy_(self.average[name])
                parameter.requires_grad_(False)
                parameter.grad = None
        self.__dict__.pop("learning", None)
        self.__dict__.pop("averages", None)


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Run the body with that many threads and deterministic kernels, then restore the process's settings."""
    before, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.random.fork_rng():
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
    kernels: Tensor | None = None,
) -> Fitted:
    """Train on `train` for all epochs; losses on `validation` are computed once, at the end, and change nothing.

    `kernels` float32 [32, 24] are the kernels' descriptors (`gnn.model.kernel_vectors`); None takes those without records.
    """
    train, validation = clipped(train, config), clipped(validation, config)
    with reproducible(config.threads):
        torch.manual_seed(config.seed)
        network = TamiyoGNN(model)
        start_from(network, kernel_priors(train), config.tau, config.choice_tau)
        if len(train):
            network.fit_inputs(store.batch(train.graphs().tolist()), kernels)
        run = _start(network.to(config.device), config)
        saved = checkpoints.load()
        if saved is not None:
            run.restore(saved)
        scale = LossScale(config.tau, config.choice_tau)
        epochs = planned_epochs(len(train.graphs()), config) if len(train) else 0
        _learn(run, _Course(store, train, config, scale, epochs), checkpoints, progress)
        run.take_average([network])
        if len(validation) and epochs:
            run.history.append({"epoch": float(run.epoch)} | _judge(network, store, validation, config, scale))
    return Fitted(network.cpu().eval(), scale, run.epoch, run.epoch, tuple(run.history))


def clipped(labels: Labels, config: TrainingConfig) -> Labels:
    """Return labels with clipped uplifts; a graft that diverged gets the lowest one."""
    bound = config.reward_clip
    uplift = np.where(np.isnan(labels.uplift) & (labels.risk == _WORST), -bound, labels.uplift.clip(-bound, bound))
    return replace(labels, uplift=uplift)


def planned_epochs(graphs: int, config: TrainingConfig) -> int:
    """Return the number of epochs within the configured limit on optimizer steps, at least one."""
    return max(1, min(config.epochs, config.steps // _batches_of(graphs, config)))


def _batches_of(graphs: int, config: TrainingConfig) -> int:
    return max(1, -(-graphs // config.batch_graphs))


def _start(network: TamiyoGNN, config: TrainingConfig) -> _Run:
    plain = [p for name, p in network.named_parameters() if p.ndim <= 1 or name.rpartition(".")[2] == "bias"]
    kept = {id(p) for p in plain}
    decayed = [p for p in network.parameters() if id(p) not in kept]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    return _Run(network, optimizer, {name: p.detach().clone() for name, p in network.named_parameters()})


@dataclass(frozen=True)
class _Course:
    """The training data and the schedule of one training."""

    store: GraphStore
    labels: Labels
    config: TrainingConfig
    scale: LossScale
    epochs: int

    @property
    def rounds_epochs(self) -> int:
        """The number of epochs in which the rounds are trained."""
        return min(self.config.rounds_epochs, self.epochs)

    def order(self, epoch: int) -> Iterator[Ints]:
        """Yield places among the graphs, batch by batch; each epoch has its own seed, so a resumed run draws the same."""
        torch.manual_seed(self.config.seed * 100_003 + epoch)
        order, size = torch.randperm(len(self.labels.graphs())).numpy(), self.config.batch_graphs
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: half a cosine from the configured rate to zero."""
        total = self.epochs * _batches_of(len(self.labels.graphs()), self.config)
        return self.config.learning_rate * 0.5 * (1.0 + float(np.cos(np.pi * step / total)))


def _learn(run: _Run, course: _Course, checkpoints: Checkpoints, progress: Progress | None) -> None:
    kept: _Kept | None = None
    while run.epoch < course.epochs:
        if run.epoch >= course.rounds_epochs and kept is None:
            run.take_average(run.network.shared())
            kept = _Kept.of(run.network, course.store, course.labels, course.config)
        run.network.train()
        losses = [_step(run, course, number, places, kept) for number, places in enumerate(course.order(run.epoch))]
        run.epoch += 1
        run.history.append({"epoch": float(run.epoch), "training": float(np.mean(losses))})
        checkpoints.save(run.state(), last=run.epoch >= course.epochs)
        if progress is not None:
            progress("training", run.epoch, course.epochs)


def _step(run: _Run, course: _Course, number: int, places: Ints, kept: "_Kept | None") -> float:
    config, network = course.config, run.network
    for group in run.optimizer.param_groups:
        group["lr"] = course.rate(run.epoch * _batches_of(len(course.labels.graphs()), config) + number)
    read, pairs = _read_anew(course, network, places) if kept is None else kept.batch(places)
    answers, blending = network.pair_head(read.seeds), network.graph_head(read.graphs)["blending_logits"]
    loss = total_loss(answers, blending, pairs, config.weights, course.scale)["total"]
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(run.learning, config.clip * network.config.members)
    run.optimizer.step()
    run.keep_average(config.average)
    return float(loss.detach()) / network.config.members


def _read_anew(course: _Course, network: TamiyoGNN, places: Ints) -> tuple[Read, Pairs]:
    """Return the heads' inputs for the graphs at `places`, with some ids dropped, and their labels."""
    batch = collate(course.store, course.labels, course.labels.graphs()[places].tolist())
    pairs = replace(batch, batch=drop_ids(batch.batch, course.config)).to(course.config.device)
    return network.read(pairs.batch), pairs


@dataclass(frozen=True)
class _Kept:
    """The heads' inputs for all training graphs, in their order, computed when training of the rounds has ended.

    `labels` number graphs and seeds among all; `first_label` and `first_seed` int64 [G + 1] are each graph's offsets.
    """

    read: Read
    labels: Pairs
    first_label: Ints
    first_seed: Ints

    @classmethod
    @torch.no_grad()
    def of(cls, network: TamiyoGNN, store: GraphStore, labels: Labels, config: TrainingConfig) -> "_Kept":
        """Compute the heads' inputs for all graphs of `labels`, in evaluation mode."""
        network.eval()
        graphs, parts, seeds = labels.graphs(), [], [np.zeros(1, dtype=np.int64)]
        pairs: list[Pairs] = []
        for start in range(0, len(graphs), _READ_GRAPHS):
            batch = collate(store, labels, graphs[start : start + _READ_GRAPHS].tolist())
            parts.append(network.read(batch.batch.to(config.device)))
            shift = int(seeds[-1][-1])
            pairs.append(replace(batch, graph=batch.graph + start, seed=batch.seed + shift))
            seeds.append(batch.batch.ptr["seed"][1:].numpy() + shift)
        whole = Pairs(**{name: torch.cat([getattr(p, name) for p in pairs]) for name in Pairs.__dataclass_fields__})
        read = Read(torch.cat([p.seeds for p in parts]), torch.cat([p.graphs for p in parts]))
        first = np.searchsorted(whole.graph.numpy(), np.arange(len(graphs) + 1))
        return cls(read, whole.to(config.device), first, np.concatenate(seeds))

    def batch(self, places: Ints) -> tuple[Read, Pairs]:
        """Return the inputs and labels of the graphs at `places`, with graphs and seeds renumbered."""
        rows, _ = _spans(self.first_label, places)
        seeds, starts = _spans(self.first_seed, places)
        graph = np.repeat(np.arange(len(places)), self.first_label[places + 1] - self.first_label[places])
        device = self.read.seeds.device
        chosen, owner = torch.from_numpy(rows).to(device), torch.from_numpy(graph).to(device)
        moved = torch.from_numpy(starts - self.first_seed[places]).to(device)
        labels = {name: getattr(self.labels, name)[chosen] for name in Pairs.__dataclass_fields__}
        pairs = Pairs(**(labels | {"graph": owner, "seed": labels["seed"] + moved[owner]}))
        at = torch.from_numpy(places).to(device)
        return Read(self.read.seeds[torch.from_numpy(seeds).to(device)], self.read.graphs[at]), pairs


def _spans(first: Ints, places: Ints) -> tuple[Ints, Ints]:
    """Return `first[p]`..`first[p + 1]` - 1 of each place p, one after the other, and where each place begins among them."""
    sizes = first[places + 1] - first[places]
    starts = np.cumsum(sizes) - sizes
    return np.arange(int(sizes.sum())) + np.repeat(first[places] - starts, sizes), starts


@torch.no_grad()
def _judge(network: TamiyoGNN, store: GraphStore, labels: Labels, config: TrainingConfig, scale: LossScale) -> dict[str, float]:
    """Return the losses on other hosts, per member, as a mean weighted by labels."""
    network.eval()
    sums: dict[str, float] = {}
    graphs = labels.graphs()
    for start in range(0, len(graphs), _READ_GRAPHS):
        batch = collate(store, labels, graphs[start : start + _READ_GRAPHS].tolist()).to(config.device)
        read = network.read(batch.batch)
        blending = network.graph_head(read.graphs)["blending_logits"]
        losses = total_loss(network.pair_head(read.seeds), blending, batch, config.weights, scale)
        share = len(batch.example) / len(labels) / network.config.members
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + float(loss) * share
    return sums


def drop_ids(batch: GraphBatch, config: TrainingConfig) -> GraphBatch:
    """Replace some ids of nodes and edges with missing or unknown, so that both these rows of every table are trained.

    Identities (seed, blueprint) are replaced more often, because future hosts have ids that training never saw.
    """
    ids, edge_ids = dict(batch.ids), dict(batch.edge_ids)
    for group in GROUPS:
        table = (batch.ids[group.name] if isinstance(group, NodeType) else batch.edge_ids[group.triple]).clone()
        for column, feature in enumerate(group.categorical):
            share = config.identity_dropout if feature.name in IDENTITY else config.id_dropout
            draw = torch.rand(len(table))
            table[draw < share, column] = REGISTRIES[str(feature.registry)].unknown
            table[draw < share / 2, column] = 0
        if isinstance(group, NodeType):
            ids[group.name] = table
        else:
            edge_ids[group.triple] = table
    return replace(batch, ids=ids, edge_ids=edge_ids)
