"""Registries: the rules of growth, adoption, conflicts, capacities, and files that outside readers load."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gnn.registry import files as registry_files
from gnn.registry.refresh import Registry, load, newest_snapshot, refresh, retire
from schemas.artifacts import REGISTRIES, RegistryRecord, registry_digest
from schemas.errors import RegistryError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "registries"


def snapshot(registry: str, entries: dict[str, int], arrival: int = 1) -> pa.Table:
    rows = [{"registry": registry, "key": k, "index": i, "arrival": arrival} for k, i in entries.items()]
    types = [("registry", pa.string()), ("key", pa.string()), ("index", pa.int64()), ("arrival", pa.int64())]
    return pa.Table.from_pylist(rows, pa.schema(types))


def outside_reader(path: Path) -> dict[str, int]:
    """What the existing online service and the offline trainer do."""
    with path.open() as f:
        return {str(k): int(v) for k, v in json.load(f).items()}


def independent_digest(entries: dict[str, int]) -> str:
    text = "[" + ",".join(f"[{json.dumps(k)},{entries[k]}]" for k in sorted(entries)) + "]"
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_first_refresh_takes_seeds_then_simic_then_new_keys_sorted(home: Path) -> None:
    simic = snapshot("schedule", {"linear": 1, "staircase": 9})
    report = refresh(home, {"schedule": {"Zeta", "alpha", "cosine"}}, simic)
    expected = {"linear": 1, "cosine": 2, "warmup_hold": 3, "sigmoid": 4, "alpha": 5, "zeta": 6, "staircase": 9}
    assert dict(load(home)["schedule"].entries) == expected
    assert report["schedule"].added == expected
    index = json.loads((home / "index.json").read_text())
    assert index["schedule"]["holes"] == [7, 8]
    assert (index["schedule"]["version"], index["schedule"]["size"], index["schedule"]["capacity"]) == (1, 7, 256)


def test_later_keys_take_the_lowest_index_never_used(home: Path) -> None:
    refresh(home, {"layer_type": {"b"}}, snapshot("layer_type", {"x": 3}))
    refresh(home, {"layer_type": {"b", "a", "c"}}, snapshot("layer_type", {"x": 3, "y": 6}))
    assert dict(load(home)["layer_type"].entries) == {"b": 1, "a": 2, "x": 3, "c": 4, "y": 6}


def test_every_registry_has_its_files_and_they_load_outside(home: Path) -> None:
    refresh(home, {"seed": {"σ-1", "a\nb", "unknown"}})
    for name in REGISTRIES:
        flat = outside_reader(home / f"{name}_registry.json")
        current = load(home)[name]
        assert flat == dict(current.entries)
        assert list(flat) == sorted(flat)
        assert current.digest == independent_digest(flat) == registry_digest(flat)
        assert outside_reader(home / "versions" / name / "1.json") == flat
    assert load(home)["seed"].entries["unknown"] in (1, 2, 3)


def test_enums_stand_at_their_numbers_and_take_no_other_key(home: Path) -> None:
    refresh(home, {"lifecycle_stage": {"NEW", "12"}, "hazard_class": {"LOW"}})
    stages = load(home)["lifecycle_stage"]
    assert stages.entries["DORMANT"] == 1
    assert stages.entries["TERMINATED"] == 11
    assert stages.encode(["TRAINING", None, "12", ""]).tolist() == [3, 0, 255, 0]
    assert dict(load(home)["hazard_class"].entries) == {"LOW": 1, "MEDIUM": 2, "HIGH": 3, "CRITICAL": 4}


def test_encoding_an_arrow_column_equals_encoding_a_list(home: Path) -> None:
    refresh(home, {"optimizer_family": {"Lion"}, "seed": {"a"}})
    family = load(home)["optimizer_family"]
    keys = ["SGD", None, "lion", "nadam", "AdamW", ""]
    assert family.encode(keys).tolist() == [1, 0, 6, 255, 3, 0]
    for column in (pa.array(keys), pa.chunked_array([keys[:2], [], keys[2:]], pa.string())):
        assert family.encode(column).tolist() == family.encode(keys).tolist()
    assert family.encode(pa.array([], pa.string())).tolist() == family.encode([]).tolist() == []
    for given in (keys, pa.array(keys), [], pa.array([], pa.string()), pa.chunked_array([], pa.string())):
        assert family.encode(given).dtype == np.int64
    assert family.encode(pa.array([None, None], pa.string())).tolist() == [0, 0]


def test_a_key_that_vanished_is_retired_keeps_its_index_and_may_come_back(home: Path) -> None:
    refresh(home, {"seed": {"a", "b"}})
    assert refresh(home, {"seed": {"b"}})["seed"].retired == ("a",)
    assert load(home)["seed"].encode(["a", "b"]).tolist() == [1, 2]
    assert refresh(home, {"seed": {"b", "c"}})["seed"].added == {"c": 3}
    assert refresh(home, {"seed": {"a", "b", "c"}})["seed"].retired == ()
    assert refresh(home, {})["seed"].retired == ()


def test_an_operator_retires_for_good(home: Path) -> None:
    refresh(home, {"seed": {"a", "b"}})
    retire(home, "seed", "a")
    assert load(home)["seed"].retired == ("a",)
    assert refresh(home, {"seed": {"a", "b"}})["seed"].retired == ("a",)
    for name, key in (("seed", "zz"), ("nothing", "a")):
        with pytest.raises(RegistryError, match=key if name == "seed" else name):
            retire(home, name, key)


def test_a_refresh_with_nothing_new_writes_nothing(home: Path) -> None:
    refresh(home, {"seed": {"a"}})
    before = {p: p.stat().st_mtime_ns for p in home.rglob("*")}
    assert not refresh(home, {"seed": {"a"}}).wrote
    assert {p: p.stat().st_mtime_ns for p in home.rglob("*")} == before


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"a": 2}, r"'a': Simic says 2, the registry has 1"),
        ({"z": 1}, r"index 1: Simic says 'z', the registry has 'a'"),
        ({"a": 1, "x": 7, "y": 7}, r"index 7: Simic says 'y', the registry has 'x'"),
        ({"x": 4095}, r"'x': Simic says 4095"),
        ({"x": 0}, r"'x': Simic says 0"),
    ],
)
def test_a_conflict_names_itself_and_only_that_registry_stays(home: Path, entries: dict[str, int], named: str) -> None:
    refresh(home, {"seed": {"a"}, "blueprint": {"p"}})
    report = refresh(home, {"seed": {"a", "new"}, "blueprint": {"p", "q"}}, snapshot("seed", entries))
    assert list(report.problems) == ["seed"]
    assert report["seed"].conflicts
    assert re.search(named, report.problems["seed"])
    assert dict(load(home)["seed"].entries) == {"a": 1}
    assert dict(load(home)["blueprint"].entries) == {"p": 1, "q": 2}


def test_every_conflict_is_named(home: Path) -> None:
    refresh(home, {"seed": {"a", "b"}})
    conflicts = refresh(home, {}, snapshot("seed", {"a": 2, "b": 1, "c": 9}))["seed"].conflicts
    assert len(conflicts) == 2


def test_the_newest_snapshot_alone_counts() -> None:
    rows = pa.concat_tables([snapshot("seed", {"old": 1}, 1), snapshot("seed", {"a": 1}, 2), snapshot("schedule", {"x": 9}, 1)])
    assert newest_snapshot(rows) == {"seed": [("a", 1)], "schedule": [("x", 9)]}


def test_a_full_registry_says_so_and_keeps_its_last_version(home: Path) -> None:
    capacity = REGISTRIES["parameter_target"].capacity
    full = {f"k{n:03d}" for n in range(capacity - 2)}
    refresh(home, {"parameter_target": full})
    report = refresh(home, {"parameter_target": full | {"too", "many"}, "seed": {"a"}})
    assert "254 of 254" in report.problems["parameter_target"]
    assert "'many'" in report.problems["parameter_target"]
    assert len(load(home)["parameter_target"].entries) == capacity - 2
    assert load(home)["seed"].version == 2


def test_older_files_are_adopted_as_version_1(home: Path) -> None:
    home.mkdir()
    (home / "seed_registry.json").write_text('{"z": 1, "a": 4}')
    (home / "schedule_registry.json").write_text('{"cosine": 1, "linear": 2}')
    assert load(home)["seed"].version == 1
    refresh(home, {"seed": {"n"}}, snapshot("seed", {"z": 1}))
    seed = json.loads((home / "index.json").read_text())["seed"]
    assert [v["added"] for v in seed["versions"]] == [{"a": 4, "z": 1}, {"n": 2}]
    assert dict(load(home)["seed"].entries) == {"z": 1, "n": 2, "a": 4}
    assert dict(load(home)["schedule"].entries) == {"cosine": 1, "linear": 2, "warmup_hold": 3, "sigmoid": 4}


def test_a_copy_of_the_directory_loads(home: Path, tmp_path: Path) -> None:
    refresh(home, {"seed": {"a"}})
    copied = tmp_path / "bundle"
    copied.mkdir()
    for name in ("index.json", *(spec.file for spec in REGISTRIES.values())):
        shutil.copy(home / name, copied / name)
    assert load(copied).digests() == load(home).digests()
    moved = tmp_path / "moved"
    shutil.copytree(home, moved)
    assert load(moved).digests() == load(home).digests()
    refresh(moved, {"seed": {"a", "b"}})
    assert load(moved)["seed"].encode(["a", "b"]).tolist() == [1, 2]
    assert outside_reader(moved / "seed_registry.json") == {"a": 1, "b": 2}


DAMAGES = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "flipped byte": lambda data: data.replace(b'"a"', b'"A"', 1),
    "not UTF-8": lambda data: data.replace(b'"a"', b'"\xff"', 1),
    "a NaN": lambda data: data.replace(b"1", b"NaN", 1),
    "a duplicate index": lambda data: b'{"a": 1, "b": 1}',
    "a duplicate key": lambda data: b'{"a": 1, "a": 2}',
    "an unrecorded hole": lambda data: b'{"a": 1, "b": 3}',
    "no object": lambda data: b"[1]",
    "index 0": lambda data: b'{"a": 0, "b": 2}',
    "the unknown index": lambda data: b'{"a": 4095, "b": 2}',
    "a boolean": lambda data: b'{"a": true, "b": 2}',
    "an empty key": lambda data: b'{"": 1, "b": 2}',
    "deep nesting": lambda data: b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_an_error_that_names_it(home: Path, damage: str) -> None:
    refresh(home, {"seed": {"a", "b"}})
    path = home / "seed_registry.json"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    for action in (lambda: load(home), lambda: refresh(home, {"seed": {"c"}})):
        with pytest.raises(RegistryError, match=r"seed_registry\.json"):
            action()


def test_a_hole_that_nobody_recorded_is_named(home: Path) -> None:
    refresh(home, {"seed": {"a", "b"}})
    (home / "seed_registry.json").write_text('{"a": 1, "b": 3}')
    with pytest.raises(RegistryError, match=r"indices \[2\] are missing"):
        load(home)


@pytest.mark.parametrize("damage", ["truncated", "empty", "no object", "not UTF-8", "deep nesting"])
def test_a_damaged_index_is_an_error_that_names_it(home: Path, damage: str) -> None:
    refresh(home, {"seed": {"a"}})
    path = home / "index.json"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(RegistryError, match=r"index\.json"):
        load(home)


def test_a_lost_index_is_not_taken_for_an_older_system(home: Path) -> None:
    refresh(home, {"seed": {"a"}})
    (home / "index.json").resolve().unlink()
    with pytest.raises(RegistryError, match=r"index\.json"):
        refresh(home, {"seed": {"b"}})


def test_a_file_put_in_place_of_ours_is_checked_too(home: Path) -> None:
    refresh(home, {"seed": {"a"}})
    (home / "seed_registry.json").unlink()
    (home / "seed_registry.json").write_text('{"b": 1}')
    with pytest.raises(RegistryError, match=r"seed_registry\.json"):
        load(home)


def test_registries_are_values(home: Path) -> None:
    refresh(home, {"seed": {"a"}})
    seed: Registry = load(home)["seed"]
    with pytest.raises(TypeError):
        seed.entries["b"] = 2  # type: ignore[index]


def test_a_reader_that_writers_overtake_reads_the_newer_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refresh(tmp_path, {"seed": {"a"}})
    read_index, overtaken = registry_files.read_index, []

    def overtaking(path: Path) -> dict[str, RegistryRecord]:
        if not overtaken:
            overtaken.append(path)
            for number in range(registry_files.KEPT_GENERATIONS + 1):
                refresh(tmp_path, {"seed": {f"b{number}"}})
            assert not path.exists()
        return read_index(path)

    monkeypatch.setattr(registry_files, "read_index", overtaking)
    entries, _ = registry_files.read_set(tmp_path)
    assert len(entries["seed"]) == 2 + registry_files.KEPT_GENERATIONS
    assert overtaken
