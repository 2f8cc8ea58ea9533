"""A re-export of the same packets with what was missing closes the gap, whichever copy comes first."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lake.accounting import accounting
from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.settings import SAMPLE, Settings
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.contracts import TABLES
from schemas.derived.tables import DERIVED
from tamiyo_assets.checks.coverage import mandatory_coverage
from tests.tamiyo_assets.pipelines import settings
from tests.tamiyo_assets.test_by_run import Home, put

BROKEN = "run-s7-0001"
STATES, RECORDS = "tolaria/system_state", "urza/blueprint"
Change = Callable[[dict[str, Any]], None]


def without_metrics(packet: dict[str, Any]) -> None:
    """Leave out mandatory values of the packet and of its layers, if it is one of the broken run."""
    if packet["training_run_id"] != BROKEN:
        return
    for name in ("samples_per_s", "loss", "gradient_norm"):
        packet["training_metrics"].pop(name, None)
        for layer in packet["layers"]:
            layer.pop(name, None)
    packet.pop("training_loss", None)
    packet.pop("validation_loss", None)


def without_channels(record: dict[str, Any]) -> None:
    """Leave out the channels of a host's layers."""
    if "s7-0001" in json.dumps(record):
        for layer in record["extras"]["graph_metadata"]["layers"]:
            layer.pop("input_channels", None)


def change_lines(folder: Path, change: Change) -> dict[Path, bytes]:
    """Change every record of the files of a folder; the files as they were."""
    before = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    for path, data in before.items():
        records = [json.loads(line) for line in data.splitlines()]
        for record in records:
            change(record)
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert {path.read_bytes() for path in before} != set(before.values())
    return before


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return exported(tmp_path)


def exported(root: Path) -> Home:
    """A home whose exports have no gap in a mandatory key."""
    put(root, "first", range(3))
    sheets = root / "exports/urabrask/bsds"
    sheets.mkdir(parents=True)
    for path in (SAMPLE / "urabrask/bsds").glob("*s7*.wal"):
        (sheets / path.name).write_bytes(path.read_bytes())
    return Home(root)


def rebuilt(home: Home) -> dg.AssetCheckResult:
    """The check of mandatory coverage after an ingest and a rebuild; the records of all tables add up."""
    home.ingest()
    home.rebuild()
    for name in TABLES:
        counts = accounting(home.tables, name)
        assert counts.balanced, (name, counts)
    found: Settings = settings(home.root, home.root / "exports")
    return mandatory_coverage(settings=found, tables=home.tables)  # type: ignore[return-value]


@pytest.mark.parametrize("full_first", [False, True])
def test_a_full_copy_of_the_same_packets_takes_the_place_of_an_incomplete_one(
    home: Home, tmp_path: Path, *, full_first: bool
) -> None:
    exports = home.root / "exports"
    if full_first:
        assert rebuilt(home).passed
    whole = change_lines(exports / STATES, without_metrics) | change_lines(exports / RECORDS, without_channels)
    result = rebuilt(home)
    assert result.passed is full_first
    if not full_first:
        assert "layer.input_channels" in str(result.metadata) and "context.throughput" in str(result.metadata)
        duplicates = accounting(home.tables, "tolaria.layer_telemetry").duplicates
        for path, data in whole.items():
            path.with_name(f"again-{path.name}").write_bytes(data)
        assert rebuilt(home).passed
        assert accounting(home.tables, "tolaria.layer_telemetry").duplicates > duplicates
    fresh = exported(tmp_path / "fresh")
    assert rebuilt(fresh).passed
    assert content(home.home) == content(fresh.home)


def content(home: Path) -> dict[str, str]:
    """Digests of the contract tables."""
    versions = Versions(home, TableStore(home, DERIVED))
    return {name: versions.of(name).digest for name in TABLES}


@pytest.mark.parametrize("seed", range(4))
def test_any_order_and_splitting_of_full_and_incomplete_copies_gives_the_same_tables(home: Home, seed: int) -> None:
    chance = random.Random(seed)
    exports = home.root / "exports"
    pieces: list[tuple[Path, bytes]] = []
    for folder, change in ((STATES, without_metrics), (RECORDS, without_channels)):
        for path, data in change_lines(exports / folder, change).items():
            pieces += [(path.parent, line) for copy in (data, path.read_bytes()) for line in copy.splitlines(keepends=True)]
            path.unlink()
    chance.shuffle(pieces)
    number = 0
    while pieces:
        for _ in range(chance.randint(1, 4)):
            taken, pieces = pieces[: len(pieces) // 2 + 1], pieces[len(pieces) // 2 + 1 :]
            for place in sorted({place for place, _ in taken}):
                (place / f"{number}.ndjson").write_bytes(b"".join(line for where, line in taken if where == place))
                number += 1
        Ingest(home.home, Exports(exports), home.tables).refresh()
    fresh = exported(home.root / "fresh")
    Ingest(fresh.home, Exports(fresh.root / "exports"), fresh.tables).refresh()
    assert content(home.home) == content(fresh.home)
    assert all(accounting(home.tables, name).balanced for name in TABLES)
