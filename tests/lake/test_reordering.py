"""The exports of the existing system, shuffled, repeated, re-encoded or fed a file at a time: always the same tables."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from google.protobuf import json_format

from lake.exports.folders import SNAPSHOTS, Exports
from lake.ingest.ingest import Ingest
from lake.store.table_store import TableStore
from schemas.contracts import FOLDERS, TABLES
from schemas.decode import Limits, decode_file
from schemas.decode.json.records import Drift, to_message
from schemas.decode.read.batches import message_class
from schemas.decode.read.framing import read_frames
from schemas.digest import table_digest
from tests.schemas.decoding import binpb, packed, wal

Digests = dict[str, str]
Rejects = Counter[tuple[str, str, bytes]]


@dataclass(frozen=True)
class Straight:
    """Exports, and what one run over them as they are gives."""

    root: Path
    digests: Digests
    rejects: Rejects

    def matches(self, home: Path) -> bool:
        return state(home) == (self.digests, self.rejects)


def state(home: Path) -> tuple[Digests, Rejects]:
    """Digests of the contract tables, and the rejects without their place; the records must add up."""
    tables = TableStore(home)
    ingest = Ingest(home, Exports(home), tables)
    assert all(ingest.accounting(name).balanced for name in TABLES)
    rejects: Rejects = Counter()
    for name in tables.names():
        if name.startswith("rejects."):
            rejects.update((name, row["reason"], row["raw"]) for row in tables.read(name).to_pylist())
    return {name: table_digest(table, tables.read(name)) for name, table in TABLES.items()}, rejects


def refresh(home: Path, root: Path) -> None:
    Ingest(home, Exports(root), TableStore(home)).refresh()


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def straight_of(root: Path, home: Path) -> Straight:
    """The state after one run over the exports as they are."""
    refresh(home, root)
    return Straight(root, *state(home))


@pytest.fixture(scope="module")
def esper(esper_exports: Path, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    return straight_of(esper_exports, tmp_path_factory.mktemp("esper"))


@pytest.fixture(scope="module", params=["the existing system", "the committed sample"])
def straight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    if request.param == "the existing system":
        return request.getfixturevalue("esper")  # type: ignore[no-any-return]
    return straight_of(request.getfixturevalue("some_hosts"), tmp_path_factory.mktemp("sample"))


def shuffled(source: Path, root: Path, chance: random.Random) -> None:
    """Every file under another name; a snapshot's name says which registry it is."""
    for path in files(source):
        where = root / path.relative_to(source)
        name = (
            path.name
            if where.parent.as_posix().endswith(SNAPSHOTS)
            else f"{chance.getrandbits(40):010x}{''.join(path.suffixes)}"
        )
        where.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, where.with_name(name))


def test_other_names_and_copies_change_nothing(straight: Straight, tmp_path: Path) -> None:
    chance = random.Random(3)
    shuffled(straight.root, tmp_path / "exports", chance)
    refresh(tmp_path / "home", tmp_path / "exports")
    assert straight.matches(tmp_path / "home")
    shuffled(straight.root, tmp_path / "exports", chance)
    refresh(tmp_path / "home", tmp_path / "exports")
    assert straight.matches(tmp_path / "home")


def test_a_file_at_a_time_over_twenty_runs(esper: Straight, tmp_path: Path) -> None:
    found = files(esper.root)
    random.Random(5).shuffle(found)
    for run in range(20):
        for path in found[run::20]:
            where = tmp_path / "exports" / path.relative_to(esper.root)
            where.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, where)
        refresh(tmp_path / "home", tmp_path / "exports")
    assert esper.matches(tmp_path / "home")


def messages_of(path: Path, root: Path) -> list[Any]:
    """The messages of one file, as protobuf objects."""
    folder = FOLDERS[path.relative_to(root).parent.as_posix()]
    kind = folder.messages[0]
    if path.suffix == ".ndjson":
        lines = path.read_text(encoding="utf-8").splitlines()
        return [to_message(json.loads(line), kind, Drift()) for line in lines if line.strip()]
    chunks = read_frames(path, path.suffix, Limits(), lambda _: False)
    return [message_class(kind).FromString(raw) for chunk in chunks for raw in chunk.raws]


def as_lines(found: list[Any], snake: bool) -> list[str]:
    return [json_format.MessageToJson(one, indent=None, preserving_proto_field_name=snake) for one in found]


ENCODINGS: dict[str, tuple[str, Callable[[list[Any]], bytes]]] = {
    "binpb": (".binpb", lambda found: binpb(one.SerializeToString(deterministic=True) for one in found)),
    "wal": (".wal", lambda found: wal(one.SerializeToString(deterministic=True) for one in found)),
    "snake": (".ndjson", lambda found: packed(as_lines(found, True), ".ndjson")),
    "camel gzip": (".ndjson.gz", lambda found: packed(as_lines(found, False), ".ndjson.gz")),
    "zstd": (".ndjson.zst", lambda found: packed(as_lines(found, True), ".ndjson.zst")),
}


def encoded(source: Path, root: Path, encoding: str) -> Path:
    """The exports with every file of a message in another encoding."""
    extension, write = ENCODINGS[encoding]
    for path in files(source):
        where = root / path.relative_to(source)
        where.parent.mkdir(parents=True, exist_ok=True)
        if FOLDERS[path.relative_to(source).parent.as_posix()].messages:
            where.with_name(f"{path.stem}-{path.suffix[1:]}{extension}").write_bytes(write(messages_of(path, source)))
        else:
            shutil.copyfile(path, where)
    return root


def reasons(rejects: Rejects) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for (name, reason, _), count in rejects.items():
        found[name, reason] += count
    return found


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_another_encoding_gives_the_same_tables(esper: Straight, tmp_path: Path, encoding: str) -> None:
    refresh(tmp_path / "home", encoded(esper.root, tmp_path / "exports", encoding))
    digests, rejects = state(tmp_path / "home")
    assert digests == esper.digests
    assert reasons(rejects) == reasons(esper.rejects)


def test_to_json_and_back_to_protobuf_gives_the_same_rejects_too(esper_exports: Path, tmp_path: Path) -> None:
    first = encoded(esper_exports, tmp_path / "first", "binpb")
    there = encoded(first, tmp_path / "there", "snake")
    back = encoded(there, tmp_path / "back", "binpb")
    for name, root in (("home", first), ("again", back)):
        refresh(tmp_path / name, root)
    assert state(tmp_path / "home") == state(tmp_path / "again")


def test_as_parquet_the_tables_are_the_same(straight: Straight, tmp_path: Path) -> None:
    for path in files(straight.root):
        file = path.relative_to(straight.root)
        folder = FOLDERS[file.parent.as_posix()]
        where = tmp_path / "exports" / file
        where.parent.mkdir(parents=True, exist_ok=True)
        if not folder.messages:
            shutil.copyfile(path, where)
            continue
        for number, chunk in enumerate(decode_file(path, folder, file=file.as_posix(), digest="")):
            for name, rows in chunk.tables.items():
                own = rows.select([*TABLES[name].names, "non_finite"])
                pq.write_table(own, where.with_name(f"{path.stem}-{name}-{number}.parquet"))
    refresh(tmp_path / "home", tmp_path / "exports")
    assert state(tmp_path / "home")[0] == straight.digests
