"""Mutated exports: decoding ends, accounts for everything, and loses no good neighbour. `make soak` runs many more."""

import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.store.table_store import TableStore
from schemas.contracts import FOLDERS, TABLES
from tests.attacks.mutations import Export, exports, mutate
from tests.schemas.decoding import Result, decode

SECONDS = 20.0  # far above what a file of a few KiB takes on a busy machine
KEYS = {"packet_id", "seed_id", "blueprint_id", "command_id", "report_id"}


@pytest.fixture(scope="module")
def good() -> list[Export]:
    return exports()


def names(result: Result, export: Export) -> set[str]:
    """Ids of the records of the folder's own table."""
    table = (FOLDERS[export.folder].tables or ("tolaria.system_state",))[0]
    return {str(row[key]) for row in result.rows(table) for key in KEYS & row.keys() if key in key_of(table)}


def key_of(table: str) -> set[str]:
    return {
        "tolaria.system_state": {"packet_id"},
        "kasmina.seed_state": {"seed_id"},
        "urabrask.bsds": {"blueprint_id"},
        "telemetry.metric": {"packet_id"},
        "tamiyo.command": {"command_id"},
        "tamiyo.field_report": {"report_id"},
        "urza.blueprint": {"blueprint_id"},
    }[table]


def untouched(export: Export, stretch: tuple[int, int], whole: list[str]) -> set[str]:
    """Ids of the records that the mutation did not touch: not their bytes, nor the newline or length right before them."""
    first, last = stretch
    return {name for name, (start, end) in zip(whole, export.spans, strict=True) if end < first or start > last}


@dataclass
class Attack:
    """Outcome of many mutated files. `reasons`: rejects by reason code; `slowest`: seconds of the slowest file."""

    wrong: list[str] = field(default_factory=list)
    files: int = 0
    without_rejects: int = 0
    records: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    def note(self, result: Result, seconds: float) -> None:
        """Count one file."""
        self.files += 1
        self.without_rejects += not result.reasons
        self.records += sum(table.num_rows for table in result.tables.values())
        self.reasons.update(result.reasons)
        self.slowest = max(self.slowest, seconds)


def attack(root: Path, good: list[Export], count: int, seed: int, found: Attack) -> None:
    """Decode `count` mutated files and note what came of them."""
    chance = random.Random(seed)
    wrong = found.wrong
    whole = {
        id(export): sorted(names(decode(root, export.folder, export.name, export.data), export), key=number)
        for export in good
        if export.spans
    }
    for index in range(count):
        export = good[index % len(good)]
        data, stretch = mutate(export.data, chance)
        began = time.monotonic()
        result = decode(root, export.folder, export.name, data)
        label = f"seed {seed} file {index} {export.folder}/{export.name} {stretch}"
        seconds = time.monotonic() - began
        found.note(result, seconds)
        if seconds > SECONDS:
            wrong.append(f"{label}: slow")
        if not result.balanced():
            wrong.append(f"{label}: unbalanced")
        if export.spans:
            lost = untouched(export, stretch, whole[id(export)]) - names(result, export)
            wrong += [f"{label}: lost {sorted(lost)}"] if lost else []


def ingest(root: Path, good: list[Export], count: int, seed: int) -> Counter[str]:
    """Ingest `count` mutated files, each beside the good one that it was; rejects by reason. Everything must add up."""
    chance = random.Random(seed)
    for index in range(count):
        export = good[index % len(good)]
        folder = root / "exports" / export.folder
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in ((export.name, export.data), (f"m{index}-{export.name}", mutate(export.data, chance)[0])):
            (folder / name).write_bytes(data)
    tables = TableStore(root / "home")
    pipeline = Ingest(root / "home", Exports(root / "exports"), tables)
    report = pipeline.refresh()
    assert sum(report.exports.values()) >= count
    assert all(pipeline.accounting(name).balanced for name in TABLES)
    assert not pipeline.refresh().wrote
    lines = (
        tables.read(name, columns=["reason"]).column(0).to_pylist() for name in tables.names() if name.startswith("rejects.")
    )
    return Counter(reason for reasons in lines for reason in reasons)


def number(name: str) -> int:
    return int("".join(filter(str.isdigit, name)))


def test_mutated_files_are_accounted_for_and_cost_no_neighbour(tmp_path: Path, good: list[Export]) -> None:
    found = Attack()
    attack(tmp_path, good, 500, seed=1, found=found)
    assert found.wrong == []
    assert (found.files, found.reasons.total() > 100) == (500, True)


def test_mutated_files_beside_good_ones_end_in_a_report(tmp_path: Path, good: list[Export]) -> None:
    assert ingest(tmp_path, good, 60, seed=2).total() > 0


@pytest.mark.soak
def test_many_mutated_files(tmp_path: Path, good: list[Export], capsys: pytest.CaptureFixture[str]) -> None:
    count = int(os.environ.get("SOAK_FILES", "10000"))
    found, rejects = Attack(), Counter[str]()
    for part in range(10):
        attack(tmp_path, good, count // 10, seed=100 + part, found=found)
        rejects += ingest(tmp_path / str(part), good, count // 100, seed=200 + part)
    with capsys.disabled():
        shown = dict(found.reasons.most_common())
        print(f"\n{found.files} mutated files, {found.without_rejects} without rejects, {found.records} rows kept: {shown}")
        print(
            f"slowest file {found.slowest:.2f} s; ingested {count // 10} more beside good ones: {dict(rejects.most_common())}"
        )
    assert found.wrong == []
