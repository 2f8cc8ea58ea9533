"""The same exports give the same digests on another machine: other hash seed, threads, file names, order of rows."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, sys
from pathlib import Path
from gnn.norms import published as norms
from gnn.registry import refresh as registries
from gnn.norms.priors import fit_priors
from gnn.registry.rules import observed_keys, source_tables
from gnn.join.run_norms import run_norms
from gnn.norms.published import newest_observations
from schemas.contracts import TABLES
from schemas.digest import table_digest
from lake.ingest.ingest import Ingest
from lake.exports.folders import Exports
from lake.store.table_store import TableStore

home, root = Path(sys.argv[1]), Path(sys.argv[2])
store = TableStore(home)
Ingest(home, Exports(root), store).refresh()
keys = observed_keys({name: store.read(name) for name in source_tables()})
registries.refresh(home / "registries", keys, store.read("simic.registry_snapshot"))
rows = {name: store.read(name) for name in TABLES}
states = newest_observations(run_norms(rows["tolaria.system_state"]))
published = norms.publish(home, norms.Norms.of(fit_priors(rows, None), states))
print(json.dumps({
    "tables": {name: table_digest(table, rows[name]) for name, table in TABLES.items()},
    "registries": registries.load(home / "registries").digests(),
    "norms": published.digest,
    "filled": sum(table.num_rows > 0 for table in rows.values()),
}))
"""


def digests(home: Path, root: Path, repository: Path, **environment: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(home), str(root)],
        cwd=repository,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout)
    return found


def exports(root: Path, seed: int) -> None:
    """Two hosts' packets, seeds and a catalogue, in an order and in files that `seed` decides; events have their own times."""
    chance = random.Random(seed)
    packets = [
        {
            "training_run_id": f"run-{run}",
            "packet_id": f"p{step}",
            "timestamp_ns": str(step // 2 + 1),
            "blueprint_id": f"host-{run}",
            "training_loss": 0.5 + 0.1 * step,
            "training_metrics": {"loss": 0.5 + step, "gradient_norm": 1.0, "samples_per_s": 100.0 * step + 1},
            "layers": [{"layer_id": f"l{n}", "loss": 0.5} for n in range(2)],
            "seed_states": [
                {"seed_id": f"s{step % 3}", "stage": "SEED_STAGE_TRAINING", "alpha": 0.5, "policy_version": f"v{step}"}
            ],
        }
        for run in range(3)
        for step in range(8)
    ]
    catalogue = [
        {
            "blueprint_id": f"host-{run}",
            "exported_at": "2026-11-23T05:33:55Z",
            "optimizer": {"family": "SGD", "learning_rate": 0.01 * (run + 1), "momentum": 0.3 * run},
            "extras": {"graph_metadata": {"layers": [{"layer_id": "l0", "type": f"T{run}", "activation_type": "relu"}]}},
        }
        for run in range(3)
    ]
    for folder, records in (("tolaria/system_state", packets + packets[:5]), ("urza/blueprint", catalogue)):
        chance.shuffle(records)
        cut = chance.randrange(1, len(records))
        where = root / folder
        where.mkdir(parents=True)
        for part in (records[:cut], records[cut:]):
            name = f"{chance.getrandbits(40):010x}.ndjson"
            (where / name).write_text("".join(json.dumps(record) + "\n" for record in part))


@pytest.mark.parametrize("seed", [1, 2])
def test_other_machines_give_the_same_digests(tmp_path: Path, repository: Path, seed: int) -> None:
    exports(tmp_path / "a", 0)
    exports(tmp_path / "b", seed)
    one = {"PYTHONHASHSEED": "0", "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    two = {"PYTHONHASHSEED": str(seed), "POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "2", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    first = digests(tmp_path / "home-a", tmp_path / "a", repository, **one)
    second = digests(tmp_path / "home-b", tmp_path / "b", repository, **two)
    assert first == second
    assert int(str(first["filled"])) >= 5
