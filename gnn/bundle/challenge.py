"""Compare a new bundle with the serving one on hosts that neither was trained on, and keep the outcome on disk."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from gnn.bundle.read import Bundle
from gnn.graph.batch import GraphBatch, GraphStore
from gnn.graph.scale import ScaledGraphs
from gnn.model.bootstrap import HostBootstrap
from gnn.model.calibration import calibrated
from gnn.model.choices import choices
from gnn.model.evaluation import outcomes_of
from gnn.model.predictions import predict
from gnn.model.rounds import pose
from lake.durable.publish import publish_file
from lake.durable.strict_json import read_object
from schemas.errors import BundleRejected
from schemas.features import NODE_TYPES, RELATIONS, FeatureGroup
from schemas.splits import host_digest

CHALLENGES = "challenges"


@dataclass(frozen=True)
class Challenge:
    """The outcome of comparing a bundle with the serving one, whose build id is `against`.

    `difference` {mean, low, high}: gap closed by the bundle's published weights minus gap closed by the serving bundle's, on
    `hosts` hosts that neither was trained on. It is None if it can't be computed; `reason` then says why.
    """

    against: str
    hosts: int
    difference: Mapping[str, float] | None
    reason: str | None = None


def challenge(bundle: Bundle, champion: Bundle, store: GraphStore, examples: pa.Table) -> Challenge:
    """Compare the published weights of both bundles on the `examples` of hosts that neither was trained on.

    `store` holds the unscaled graphs.
    """
    config, against = bundle.manifest.training_config, champion.build_id
    trained = [found.manifest.training.get("host_digests") for found in (bundle, champion)]
    if None in trained:
        return Challenge(against, 0, None, f"build {against[:16]} does not say which hosts it was trained on")
    seen = {digest for digests in trained for digest in digests or ()}
    fresh = pa.array([host_digest(host) not in seen for host in examples["host"].to_pylist()], pa.bool_())
    problem = pose(store, examples.filter(fresh), config)
    hosts = len(np.unique(problem.host))
    if not hosts:
        return Challenge(against, 0, None, "no measured host that neither trained on")
    outcomes = outcomes_of(problem.examples, problem.labels)
    boot = HostBootstrap(outcomes.hosts, config.bootstrap, config.seed)
    found = []
    for each in (bundle, champion):
        said = predict(each.network, GraphsOf(store, each), problem.labels, config.batch_graphs)
        made = choices(calibrated(said, each.calibration).score, outcomes.reward, problem.labels.graph)
        found.append(boot.ratio(made.gain, made.room, boot.places(outcomes.hosts[made.row])))
    interval = (found[0] - found[1]).interval
    if not np.isfinite([interval.mean, interval.low, interval.high]).all():
        return Challenge(against, hosts, None, "too few states with two measured pairs")
    return Challenge(against, hosts, asdict(interval))


class GraphsOf(ScaledGraphs):
    """Graphs as a bundle sees them online: scaled with its norms, with ids that its registries do not hold set to unknown."""

    def __init__(self, store: GraphStore, bundle: Bundle) -> None:
        """Scale the unscaled graphs of `store` as `bundle` does."""
        super().__init__(store, bundle.norms.priors)
        known: dict[str, Tensor] = {}
        for name, registry in bundle.registries.items():
            places = torch.full((registry.capacity,), registry.unknown)
            held = torch.tensor([0, registry.unknown, *registry.entries.values()])
            places[held] = held
            known[name] = places
        self._known = known

    def batch(self, indices: Sequence[int]) -> GraphBatch:
        """Return the graphs at `indices`, in that order, as one scaled batch."""
        batch = super().batch(indices)
        ids = {node.name: self._seen(node, batch.ids[node.name]) for node in NODE_TYPES}
        edge_ids = {r.triple: self._seen(r, batch.edge_ids[r.triple]) for r in RELATIONS}
        return replace(batch, ids=ids, edge_ids=edge_ids)

    def _seen(self, group: FeatureGroup, ids: Tensor) -> Tensor:
        if not group.categorical:
            return ids
        columns = [self._known[str(f.registry)][ids[:, place]] for place, f in enumerate(group.categorical)]
        return torch.stack(columns, 1)


def keep(home: Path, build_id: str, found: Challenge) -> None:
    """Write the outcome of a build's comparison with the serving one; an earlier outcome of that build is replaced."""
    text = json.dumps(asdict(found), sort_keys=True, allow_nan=False)
    publish_file(home / CHALLENGES / f"{build_id}.json", (text + "\n").encode("utf-8"))


def is_kept(home: Path, build_id: str, against: str) -> bool:
    """Return whether a build was compared with the bundle `against`."""
    path = home / CHALLENGES / f"{build_id}.json"
    return path.exists() and read_object(path, BundleRejected).get("against") == against


def kept(home: Path, build_id: str, serving: str | None) -> Challenge | None:
    """Return the outcome of a build's comparison with `serving`, or None if no other build serves.

    If the two were not compared, the `reason` of the outcome says so.
    """
    if serving is None or serving == build_id:
        return None
    if is_kept(home, build_id, serving):
        found: dict[str, Any] = read_object(home / CHALLENGES / f"{build_id}.json", BundleRejected)
        return Challenge(found["against"], found["hosts"], found["difference"], found["reason"])
    return Challenge(serving, 0, None, f"it was not compared with build {serving[:16]}, which serves")
