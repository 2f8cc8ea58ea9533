"""Mutated exports: decoding ends, accounts for everything, and loses no good neighbour. `make soak` runs many more."""

import os
import random
import time
from pathlib import Path

import pytest

from schemas.contracts import FOLDERS
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


def attack(root: Path, good: list[Export], count: int, seed: int) -> list[str]:
    """Decode `count` mutated files; what went wrong with them."""
    chance = random.Random(seed)
    wrong: list[str] = []
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
        if time.monotonic() - began > SECONDS:
            wrong.append(f"{label}: slow")
        if not result.balanced():
            wrong.append(f"{label}: unbalanced")
        if export.spans:
            lost = untouched(export, stretch, whole[id(export)]) - names(result, export)
            wrong += [f"{label}: lost {sorted(lost)}"] if lost else []
    return wrong


def number(name: str) -> int:
    return int("".join(filter(str.isdigit, name)))


def test_mutated_files_are_accounted_for_and_cost_no_neighbour(tmp_path: Path, good: list[Export]) -> None:
    assert attack(tmp_path, good, 500, seed=1) == []


@pytest.mark.soak
def test_many_mutated_files(tmp_path: Path, good: list[Export]) -> None:
    count = int(os.environ.get("SOAK_FILES", "10000"))
    assert [wrong for part in range(10) for wrong in attack(tmp_path, good, count // 10, seed=100 + part)] == []
