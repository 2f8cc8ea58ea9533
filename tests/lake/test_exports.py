"""The scan: which files are exports, in any spelling, and every file that is none is named."""

import json
import os
from pathlib import Path

import pytest

from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.store.table_store import TableStore
from schemas.contracts import FOLDERS

FOLDER, SEEDS = "kasmina/seed_state", "kasmina.seed_state"


def seed(number: int) -> str:
    return json.dumps({"training_run_id": "r", "seed_id": f"s{number}", "timestamp_ns": number + 1}) + "\n"


def put(root: Path, file: str, text: str) -> None:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_extensions_match_in_any_case_and_jsonl_is_ndjson() -> None:
    folder = FOLDERS[FOLDER]
    spelled = {"a.jsonl": ".ndjson", "a.JSONL.GZ": ".ndjson.gz", "A.NdJson.Zst": ".ndjson.zst", "a.BINPB": ".binpb"}
    assert {name: folder.extension(name) for name in spelled} == spelled
    assert [folder.extension(name) for name in ("a.json", "a.csv", "a.ndjson.bz2", "ndjson", "a.parquet.tmp")] == [None] * 5
    assert FOLDERS["simic/registry_snapshot"].extension("seed_registry.JSON") == ".json"
    assert FOLDERS["simic/registry_snapshot"].extension("a.jsonl") is None


def test_every_spelling_is_read_and_every_other_file_is_named(tmp_path: Path) -> None:
    root = tmp_path / "exports"
    for number, name in enumerate(("a.ndjson", "b.jsonl", "C.NDJSON", "d.Jsonl")):
        put(root, f"{FOLDER}/{name}", seed(number))
    put(root, "simic/registry_snapshot/SEED_Registry.JSON", '{"a": 1}')
    unread = [
        f"{FOLDER}/array.json",
        f"{FOLDER}/deep/x.ndjson",
        f"{FOLDER}/x.ndjson.bz2",
        "Kasmina/seed_state/x.ndjson",
        "kasmina/seed_states/x.ndjson",
        "top.ndjson",
    ]
    for file in unread:
        put(root, file, seed(9))
    for hidden in (f"{FOLDER}/.x.ndjson", f"{FOLDER}/x.ndjson.tmp", ".hidden/x.ndjson"):
        put(root, hidden, seed(9))
    (root / FOLDER / "dangling.ndjson").symlink_to("nothing")
    (root / FOLDER / "folder.ndjson").symlink_to(root / "simic")
    os.mkfifo(root / FOLDER / "pipe.ndjson")
    unread += [f"{FOLDER}/{name}.ndjson" for name in ("dangling", "folder", "pipe")]
    found = Ingest(tmp_path / "home", Exports(root), TableStore(tmp_path / "home"))
    report = found.refresh()
    assert found.tables.count(SEEDS) == 4 and found.tables.count("simic.registry_snapshot") == 1
    assert found.tables.read("simic.registry_snapshot")["registry"].to_pylist() == ["SEED"]
    assert sorted(file.file for file in report.unplaced) == [file.file for file in Exports(root).unread()] == sorted(unread)
    reasons = {file.file: file.reason for file in report.unplaced}
    assert "nested too deep" in reasons[f"{FOLDER}/deep/x.ndjson"]
    assert reasons[f"{FOLDER}/dangling.ndjson"] == "a link to nothing"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    put(tmp_path, f"{FOLDER}/x.ndjson", seed(1))
    (tmp_path / FOLDER).chmod(0)
    assert [file.file for file in Exports(tmp_path).unread()] == [FOLDER]
    (tmp_path / FOLDER).chmod(0o755)
