"""The architecture page names the files through which a key goes from an export to a tensor; a key that is sent enters each."""

import json
import re
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from gnn.encode.build import encode_all
from gnn.encode.encoding import Vocabularies
from gnn.graph.dataset import GraphDataset
from gnn.graph.files import write_shard
from gnn.join.join import join
from gnn.join.metadata import Metadata
from gnn.join.sources import Sources
from gnn.join.tables import feature_tables, join_of
from gnn.registry.refresh import load, refresh
from gnn.registry.rules import observed_keys, source_columns, source_tables
from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.store.table_store import TableStore
from schemas.contracts import TABLES
from schemas.features import SEED

SEEDS = ("seed-of-no-one-else", "another-seed")


def walk(repository: Path) -> list[str]:
    """The files that the page names, in its order."""
    section = (
        (repository / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## One key, from export to tensor")[2]
    )
    return re.findall(r"^\| `([\w/]+\.py)` \|", section.partition("\n## ")[0], re.MULTILINE)


def put(path: Path, *records: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def sent(root: Path) -> GraphDataset:
    """Send two seeds and a packet of their run, and build the graph dataset, as the assets do."""
    run = {"training_run_id": "run"}
    put(root / "exports/kasmina/seed_state/a.ndjson", *(run | {"seed_id": seed, "timestamp_ns": "1"} for seed in SEEDS))
    put(root / "exports/tolaria/system_state/a.ndjson", run | {"packet_id": "p", "timestamp_ns": "2", "training_loss": 0.5})
    home, tables = root / "home", TableStore(root / "home")
    Ingest(home, Exports(root / "exports"), tables).refresh()
    refresh(home / "registries", observed_keys(tables.read_each({name: source_columns(name) for name in source_tables()})))
    sources = Sources(tables.read_each(dict.fromkeys(TABLES)))
    features = feature_tables(join(Metadata(sources), sources, {})[0])
    encoded = encode_all(join_of(features), Vocabularies(load(home / "registries")))
    return GraphDataset.of([write_shard(home / "graphs", encoded)])


def test_a_seed_goes_through_every_file_that_the_page_names(repository: Path, tmp_path: Path) -> None:
    entered: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            entered.add(frame.f_code.co_filename)

    before = sys.getprofile(), threading.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        dataset = sent(tmp_path)
        batch = dataset.batch([0])
    finally:
        sys.setprofile(before[0])
        threading.setprofile(before[1])
    index = json.loads((tmp_path / "home/registries/seed_registry.json").read_text())
    place = [feature.name for feature in SEED.categorical].index("seed_id")
    assert dataset.element_ids("seed", 0) == sorted(SEEDS)
    assert batch.ids["seed"][:, place].tolist() == [index[seed] for seed in sorted(SEEDS)]
    named = walk(repository)
    assert len(named) == len(set(named)) >= 10
    assert [name for name in named if str(repository / name) not in entered] == []
