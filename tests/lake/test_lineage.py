"""Lineage: from a build id to export files, and nothing that was changed passes."""

import hashlib
import json
from pathlib import Path

import pytest

from lake import builds
from lake.durable.file_digest import file_digest
from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.store.table_store import TableStore
from schemas.errors import StorageError

INPUTS = {"tables": {"urza.blueprint": "a" * 64, "urza.layer": "b" * 64}, "registries": {}, "norms": "c" * 64, "code": "d" * 64}
BUILD = hashlib.sha256(json.dumps(INPUTS, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with one ingested export, and a build made of it."""
    folder = tmp_path / "exports" / "urza" / "blueprint"
    folder.mkdir(parents=True)
    (folder / "one.ndjson").write_text('{"blueprint_id": "p"}\n')
    home = tmp_path / "home"
    tables = TableStore(home)
    Ingest(home, Exports(tmp_path / "exports"), tables).refresh()
    manifest = home / "bundles" / BUILD / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"inputs": INPUTS}))
    builds.record(home, tables, BUILD, {"urza.blueprint": 0})
    return home


def test_a_build_leads_back_to_the_files_of_its_exports(home: Path) -> None:
    export = home.parent / "exports" / "urza" / "blueprint" / "one.ndjson"
    found = builds.chain(home, BUILD)
    digest = file_digest(export)
    assert found["tables"]["urza.blueprint"] == {
        "digest": "a" * 64,
        "version": 0,
        "exports": [{"digest": digest, "files": ["urza/blueprint/one.ndjson"]}],
    }
    assert found["tables"]["urza.layer"] == {"digest": "b" * 64, "version": None, "exports": []}
    assert builds.builds(home) == [BUILD]
    assert builds.pins(home) == {BUILD: {"urza.blueprint": 0}}


def test_inputs_that_do_not_give_the_build_id_are_refused(home: Path) -> None:
    manifest = home / "bundles" / BUILD / "manifest.json"
    manifest.write_text(json.dumps({"inputs": INPUTS | {"norms": "e" * 64}}))
    with pytest.raises(StorageError, match=r"manifest\.json"):
        builds.chain(home, BUILD)


def test_an_unknown_or_ill_formed_build_is_an_error(home: Path) -> None:
    with pytest.raises(StorageError, match="f" * 64):
        builds.chain(home, "f" * 64)
    with pytest.raises(StorageError, match="64 hex digits"):
        builds.chain(home, "../pins")


def test_a_damaged_record_names_its_file(home: Path) -> None:
    path = home / "builds" / f"{BUILD}.json"
    for damage in ("{", '{"tables": []}', '{"tables": {"a": {"version": 1}}}'):
        path.write_text(damage)
        with pytest.raises(StorageError, match=BUILD):
            builds.load(home, BUILD)


def test_the_beginning_of_a_build_id_is_enough_where_it_is_the_only_one(tmp_path: Path) -> None:
    names = ["ab" * 32, "ac" * 32]
    assert builds.whole_build_id(tmp_path, "ab") == "ab"
    for name in names:
        (tmp_path / "bundles" / name).mkdir(parents=True)
    assert [builds.whole_build_id(tmp_path, start) for start in ("ab", "ac", "a", "", "b", names[1])] == [
        *names,
        "a",
        "",
        "b",
        names[1],
    ]
