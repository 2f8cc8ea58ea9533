"""Replay packets through the serving graph builder and compare a bundle's answers with measured outcomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from gnn.bundle.read import Bundle
from gnn.graph.batch import GraphBatch
from gnn.graph.builder import GraphBuilder
from gnn.graph.scale import scale
from gnn.join.rows import Labels as Names
from gnn.model.bootstrap import Estimate, HostBootstrap
from gnn.model.calibration import Answers, calibrated
from gnn.model.evaluation import Outcomes, evaluate, outcomes_of
from gnn.model.outputs import Outputs
from gnn.model.predictions import Predictions
from gnn.model.readout import MASKED_LOGIT
from gnn.model.targets import Floats, Labels, locate
from gnn.online.snapshot import Snapshot
from schemas.configuration import NUM_KERNELS
from schemas.contracts import TABLES
from schemas.kernels import KERNELS
from schemas.splits import host_digest

SHRINKAGE = 8.0  # weight, in labels, of the overall mean in each kernel's mean
_PACKETS = (*(name for name, own in TABLES.items() if name.startswith("tolaria.") and own.scope), "kasmina.seed_state")


@dataclass(frozen=True)
class Judged:
    """The figures of a bundle's answers on hosts that it never saw, by model and figure name.

    `pairs` and `hosts` count measured outcomes at the bundle's horizon, `excluded` the hosts that it was trained on.
    """

    hosts: int
    states: int
    pairs: int
    excluded: int
    ceiling: float
    figures: Mapping[str, Mapping[str, Estimate]]


def judge(bundle: Bundle, tables: Mapping[str, pa.Table], examples: pa.Table) -> Judged:
    """Replay the packets in which `examples` were measured, and judge the bundle's answers by these outcomes.

    `tables` are contract tables by name, `examples` their `training.examples`.
    """
    config = bundle.manifest.training_config
    seen = set(bundle.manifest.training["host_digests"])
    hosts = np.array(examples["host"].to_pylist(), dtype=str)
    known = {host: host_digest(host) in seen for host in np.unique(hosts).tolist()}
    fresh = pa.array([not known[host] for host in hosts.tolist()], pa.bool_())
    at = pc.equal(examples["horizon"], config.horizon)
    kept = examples.filter(pc.and_(fresh, at))
    replayed = replay(bundle, tables, sorted(set(kept["training_run_id"].to_pylist())))
    labels, _ = locate(replayed, kept)
    outcomes = outcomes_of(kept, labels)
    answers = {"model": _answers(bundle, replayed, labels), "best_constant": _constant(outcomes)}
    boot = HostBootstrap(outcomes.hosts, config.bootstrap, config.seed)
    return Judged(
        hosts=len(np.unique(outcomes.hosts)),
        states=outcomes.states,
        pairs=len(outcomes),
        excluded=sum(known.values()),
        ceiling=outcomes.ceiling,
        figures=evaluate(outcomes, answers, boot),
    )


@dataclass
class Replayed:
    """Answers of a bundle by packet; `index_of` and `element_ids` find packets and seeds as a graph store does."""

    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    seeds: list[list[str]] = field(default_factory=list)
    outputs: list[dict[str, Tensor]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.seeds)

    def index_of(self, run: str, packet: str) -> int:
        """Return the number of that packet. Raises KeyError if it was not replayed."""
        return self.numbers[run, packet]

    def element_ids(self, node_type: str, index: int) -> list[str]:
        """Return the ids of that packet's seeds, in row order; `node_type` must be `seed`."""
        if node_type != "seed":
            raise KeyError(node_type)
        return self.seeds[index]


@torch.inference_mode()
def replay(bundle: Bundle, tables: Mapping[str, pa.Table], runs: Sequence[str]) -> Replayed:
    """Answer every packet of the training runs `runs`."""
    snapshot = Snapshot.of(bundle, tables)
    found = Replayed()
    network = bundle.network.eval()
    for run in runs:
        builder = GraphBuilder(snapshot.metadata, bundle.registries, pin=False)
        own = {name: tables[name].filter(pc.equal(tables[name]["training_run_id"], run)) for name in _PACKETS if name in tables}
        built = builder.build(own)
        if built.batch.num_graphs:
            outputs = network(scale(built.batch, bundle.norms.priors))
            _keep(found, built.features.keys(), _seed_names(built.features.joined.nodes["seed"].names), built.batch, outputs)
    return found


def _seed_names(names: Names | None) -> list[str]:
    return [] if names is None else [str(name) for name in names.arrow().to_pylist()]


def _keep(found: Replayed, keys: pa.Table, names: list[str], batch: GraphBatch, outputs: Outputs) -> None:
    bounds = batch.ptr["seed"].tolist()
    for number, row in enumerate(keys.select(["training_run_id", "packet_id"]).to_pylist()):
        first, last = bounds[number], bounds[number + 1]
        found.numbers[row["training_run_id"], row["packet_id"]] = len(found.seeds)
        found.seeds.append(names[first:last])
        found.outputs.append(
            {
                "logit": outputs.seed_scores[first:last, None] + outputs.seed_policy_logits[first:last],
                "value": outputs.seed_value[first:last],
                "deviation": (0.5 * outputs.seed_value_log_var[first:last]).exp(),
                "risk": outputs.seed_risk_logits[first:last],
            }
        )


def _answers(bundle: Bundle, replayed: Replayed, labels: Labels) -> Answers:
    """Return the calibrated answers for `labels`; a kernel that the bundle never measured is never chosen."""
    places = list(zip(labels.graph.tolist(), labels.seed.tolist(), labels.kernel.tolist(), strict=True))

    def column(name: str, width: tuple[int, ...] = ()) -> Floats:
        rows = [replayed.outputs[graph][name][seed, kernel].double().numpy() for graph, seed, kernel in places]
        return np.stack(rows) if rows else np.zeros((0, *width))

    measured = np.array([kernel in bundle.manifest.policy.measured for kernel in KERNELS])
    logit = np.where(measured[labels.kernel], column("logit"), MASKED_LOGIT)
    said = Predictions(column("value"), logit, column("deviation"), column("risk", (5,)))
    return calibrated(said, bundle.calibration)


def _constant(outcomes: Outcomes) -> Answers:
    """Answer with the mean reward of each kernel on all other hosts, shrunken to their overall mean."""
    host, kernel = np.unique(outcomes.hosts, return_inverse=True)[1], outcomes.labels.kernel
    reward = np.nan_to_num(outcomes.reward)
    count = np.zeros((int(host.max(initial=-1)) + 1, NUM_KERNELS))
    total = np.zeros_like(count)
    np.add.at(count, (host, kernel), np.isfinite(outcomes.reward))
    np.add.at(total, (host, kernel), reward)
    others, mass = total.sum(0) - total, count.sum(0) - count
    overall = others.sum(1, keepdims=True) / np.maximum(mass.sum(1, keepdims=True), 1.0)
    value = ((others + SHRINKAGE * overall) / (mass + SHRINKAGE))[host, kernel]
    nan = np.full(len(value), np.nan)
    return Answers(value, value > 0, value, value, nan, nan)
