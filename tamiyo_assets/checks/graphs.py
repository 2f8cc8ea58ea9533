"""Check the model's inputs: norms that divide, masks that agree with coverage, values like those trained on."""

import hashlib
import json
import math
from pathlib import Path
from typing import Final

import dagster as dg
from dagster import ResourceParam

from lake.durable.publish import publish_file
from lake.settings import Settings
from lake.store.table_store import TableStore
from schemas.errors import BundleRejected, FeatureError
from schemas.features import COVERAGE_KEYS, GROUPS
from tamiyo_assets.assets.graphs import DATASET
from tamiyo_assets.assets.normalization import NORMS
from tamiyo_assets.assets.problems import Problem, check_result
from tamiyo_assets.assets.reports import key_of

_SYSTEM_OF: Final = {group.key(feature): feature.system for group in GROUPS for feature in group.features}


@dg.asset_check(asset=NORMS, description="Every mean and deviation is finite, no deviation is 0.")
def norms_sane(tables: ResourceParam[TableStore]) -> dg.AssetCheckResult:
    """ERROR with the norms that are not finite or have a standard deviation of 0."""
    rows = tables.read("norms.current", columns=["name", "mean", "var"]).to_pylist()
    problems = []
    for row in rows:
        mean, var = (math.nan if row[name] is None else row[name] for name in ("mean", "var"))
        if not math.isfinite(mean) or not math.isfinite(var) or var <= 0.0:
            said = f"{row['name']}: expected a finite mean and a variance above 0, found {mean} and {var}"
            problems.append(Problem(row["name"], said))
    return check_result(problems, "every norm is finite and has a spread")


@dg.asset_check(
    asset=DATASET,
    additional_deps=[key_of("coverage.by_key")],
    description="The tensors' masks say what coverage counted.",
)
def masks_agree(settings: ResourceParam[Settings], tables: ResourceParam[TableStore]) -> dg.AssetCheckResult:
    """Check, for every key, that mask channels and ids of all graphs add up to the measured elements of `coverage.by_key`."""
    from gnn.coverage.counts import check_conservation
    from gnn.graph.dataset import GraphDataset

    shards = GraphDataset.open(settings.home).shards
    sums = [sum(column) for column in zip(*(shard.measured().tolist() for shard in shards), strict=True)]
    rows = tables.read("coverage.by_key", columns=["key", "measured", "elements"])
    problems = []
    try:
        check_conservation(dict(zip(COVERAGE_KEYS, sums, strict=True)) if shards else {}, rows)
    except FeatureError as error:
        problems.append(Problem("masks and coverage differ", str(error)))
    return check_result(problems, "every key agrees")


@dg.asset_check(asset=DATASET, description="Values are distributed as those that the serving bundle was trained on.")
def drift(settings: ResourceParam[Settings]) -> dg.AssetCheckResult:
    """WARN with the features whose population stability index is above the threshold; passes while nothing serves."""
    from gnn.bundle import serving

    build_id = serving(settings.home)
    if build_id is None:
        return check_result([], "nothing serves", severity=dg.AssetCheckSeverity.WARN)
    try:
        found = _stability(settings.home, build_id)
    except BundleRejected as error:
        unread = Problem("unreadable serving bundle", str(error))
        return check_result([unread], "", severity=dg.AssetCheckSeverity.WARN)
    moved = [
        Problem(key, f"{key}: index {index:.2f}, expected at most {settings.drift:.2f}", (_SYSTEM_OF[key],))
        for key, index in found.items()
        if index > settings.drift
    ]
    highest = max(found.values(), default=None)
    return check_result(
        moved,
        "distributed as in training" if found else "the serving bundle does not say how its training data are distributed",
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"features": len(moved)} | ({"highest_index": round(highest, 4)} if highest is not None else {}),
    )


def _stability(home: Path, build_id: str) -> dict[str, float]:
    """Return the stability index of each feature, largest first; computed again if the graphs or the bundle changed."""
    from gnn.bundle import bundle_path
    from gnn.bundle.read import read_bundle
    from gnn.graph.dataset import GraphDataset, current_shards
    from gnn.graph.distribution import stability

    path = home / "digests" / "drift.json"
    shards = current_shards(home)
    inputs = hashlib.sha256(json.dumps([build_id, shards], sort_keys=True).encode()).hexdigest()
    try:
        noted = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        noted = {}
    if isinstance(noted, dict) and noted.get("inputs") == inputs:
        known: dict[str, float] = noted["index"]
        return known
    before = read_bundle(bundle_path(home, build_id)).manifest.distributions
    found = stability(before, GraphDataset.open(home, shards))
    publish_file(path, json.dumps({"inputs": inputs, "index": found}).encode())
    return found


GRAPH_CHECKS: Final = (norms_sane, masks_agree, drift)
