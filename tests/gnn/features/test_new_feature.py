"""Adding a feature is adding one row: it then stands in tensors, masks, coverage, tables, the page and the dataset."""

import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import dataclasses
import sys
from pathlib import Path

import schemas.features as declared
from schemas.features import LAYER, Feature, Kind, Transform

row = Feature("depth", Kind.NUMERIC, "urza", (("urza.layer", "depth"),), Transform.LOG1P)
layer = dataclasses.replace(LAYER, features=(*LAYER.features, row))
declared.LAYER = layer
declared.NODE_TYPES = tuple(layer if node.name == "layer" else node for node in declared.NODE_TYPES)
declared.GROUPS = (*declared.NODE_TYPES, *declared.RELATIONS)
declared.COVERAGE_KEYS = tuple(group.key(f) for group in declared.GROUPS for f in group.features)

import numpy as np

from gnn.encode.build import build_features
from tests.gnn.coverage import by_key, check_conservation, gaps
from gnn.join.tables import feature_tables
from gnn.graph.builder import to_batch
from gnn.graph.dataset import GraphDataset
from gnn.graph.files import write_shard
from schemas.feature_reference import features_page
from tests.gnn.tables import FixedNorms, registries, small_world, table

world = small_world(2)
layers = [{**r, "depth": r["index"] + 1 if r["layer_id"] == "fc1" else None} for r in world["urza.layer"].to_pylist()]
world["urza.layer"] = table("urza.layer", layers)
features = build_features(world, registries=registries())
batch = to_batch(features)
batch.validate()
assert batch.x["layer"].shape[1] == LAYER.width + 2
assert np.allclose(batch.x["layer"][:, layer.value_width - 1], [np.log(2.0), 0.0] * 2)
assert batch.x["layer"][:, -1].tolist() == [1.0, 0.0] * 2
keys = {r["key"]: r for r in by_key(features).to_pylist()}
assert (keys["layer.depth"]["measured"], keys["layer.depth"]["elements"]) == (2, 4)
check_conservation(features, by_key(features))
assert [r["system"] for r in gaps(features).to_pylist() if r["key"] == "layer.depth"] == ["urza"]
assert feature_tables(features.joined)["features.layer"].column("depth").to_pylist() == [1.0, None] * 2
assert "| `depth` |" in features_page()
shard = write_shard(Path(sys.argv[1]), features)
assert GraphDataset.of([shard]).batch([1]).x["layer"].shape[1] == LAYER.width + 2
"""


def test_one_row_arrives_everywhere(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path / "graphs")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
