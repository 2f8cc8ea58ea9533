"""Replay of rejects: what a fix heals becomes rows, as if it had been read so from the start; nothing is lost or doubled."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import json_format
from typer.testing import CliRunner

from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.ingest.replay_plan import DIRECTORY
from lake.replay.run import Replay, replay
from lake.replay.selection import Filter
from lake.store.table_store import TableStore
from schemas.contracts import TABLES
from schemas.decode import Limits
from schemas.digest import table_digest
from schemas.leyline import leyline_pb2 as pb
from tamiyo.cli import app
from tests.schemas.decoding import binpb, packed, wal

STRICT = Limits(string_bytes=20)
LONG = "x" * 30


class Home:
    """A home whose decoder is bounded by limits that can be lifted."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.home, self.root = folder, root
        self.tables = TableStore(folder)

    def refresh(self, limits: Limits | None = None) -> None:
        Ingest(self.home, Exports(self.root), self.tables, limits or Limits()).refresh()

    def replay(self, table: str | None = None, reason: str | None = None, limits: Limits | None = None) -> Replay:
        return replay(self.home, self.tables, Exports(self.root), limits or Limits(), Filter(table, reason))

    def state(self) -> dict[str, object]:
        """Digests of the contract tables, the accounting, and the rejects."""
        ingest = Ingest(self.home, Exports(self.root), self.tables)
        found: dict[str, object] = {name: table_digest(table, self.tables.read(name)) for name, table in TABLES.items()}
        # a replay does not count again what lies in the exports
        found |= {f"{name} counts": replace(ingest.accounting(name), records=0) for name in TABLES}
        rejects = [name for name in self.tables.names() if name.startswith("rejects.")]
        return found | {name: sorted(map(str, self.tables.read(name).to_pylist())) for name in rejects}

    def balanced(self) -> bool:
        ingest = Ingest(self.home, Exports(self.root), self.tables)
        return all(ingest.accounting(name).balanced for name in TABLES)


def packet(number: int, **more: object) -> pb.SystemStatePacket:
    found = pb.SystemStatePacket(packet_id=f"p{number}", training_run_id="run", timestamp_ns=number + 1, **more)  # type: ignore[arg-type]
    found.layers.add(layer_id="l0", loss=0.5)
    found.layers.add(layer_id="l1" if number % 3 else LONG, loss=0.25)
    found.seed_states.add(seed_id="s", stage=3)
    return found


PACKETS = [packet(n, experiment_name=LONG if n % 2 else "e") for n in range(6)] + [packet(0, experiment_name="e")]
LINES = [json_format.MessageToJson(one, indent=None) for one in PACKETS] + ["not json"]
URZA = [
    {"blueprint_id": f"b{n}", "extras": {"graph_metadata": {"layers": [{"layer_id": "l", "type": LONG if n else "conv"}]}}}
    for n in range(2)
]


def telemetry(*numbers: int) -> list[pb.TelemetryPacket]:
    metrics = {0: [{"name": "m", "value": 1.0}], 1: [{"name": LONG, "value": 1.0}, {"name": "n", "value": 2.0}]}
    return [pb.TelemetryPacket(packet_id=f"t{number}", metrics=metrics[number % 2]) for number in numbers]


def envelopes(*numbers: int) -> list[pb.BusEnvelope]:
    found = [pb.BusEnvelope(message_type=4, payload=one.SerializeToString()) for one in telemetry(*numbers)]
    return found + [pb.BusEnvelope(message_type=1, payload=one.SerializeToString()) for one in PACKETS[:3]]


FILES: dict[str, bytes] = {
    "tolaria/system_state/a.ndjson": packed(LINES, ".ndjson"),
    "tolaria/system_state/b.binpb": binpb(one.SerializeToString() for one in PACKETS)[:-3],
    "tolaria/system_state/c.ndjson.gz": packed(LINES, ".ndjson.gz"),
    "urza/blueprint/a.ndjson": packed([json.dumps(one) for one in URZA], ".ndjson"),
    "weatherlight/telemetry/a.wal": wal(one.SerializeToString() for one in telemetry(0, 1)),
    "oona/envelope/a.wal": wal(one.SerializeToString() for one in envelopes(2, 3)),
    "oona/envelope/b.ndjson": packed([json_format.MessageToJson(one, indent=None) for one in envelopes(4, 5)], ".ndjson"),
    "simic/registry_snapshot/seed_registry.json": json.dumps({"a": 1, LONG: 2, "b": "x"}).encode(),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "exports"
    for file, data in FILES.items():
        (found / file).parent.mkdir(parents=True, exist_ok=True)
        (found / file).write_bytes(data)
    rows = {"seed_id": ["s", "t"], "training_run_id": ["r", "r"], "timestamp_ns": [1, 1], "policy_version": [LONG, "v"]}
    rows |= {"metrics": pa.array([[("alpha", 0.5)], None], pa.map_(pa.string(), pa.float32())), "extra": [1, 2]}
    (found / "kasmina/seed_state").mkdir(parents=True)
    pq.write_table(pa.table(rows), found / "kasmina/seed_state/a.parquet")
    return found


@pytest.fixture
def lenient(tmp_path: Path, root: Path) -> dict[str, object]:
    """The state of a home that never had the strict limits."""
    fresh = Home(tmp_path / "fresh", root)
    fresh.refresh()
    return fresh.state()


def test_a_replay_after_a_fix_ends_where_a_fresh_ingest_does(tmp_path: Path, root: Path, lenient: dict[str, object]) -> None:
    home = Home(tmp_path / "home", root)
    home.refresh(STRICT)
    assert home.state() != lenient
    report = home.replay()
    assert home.state() == lenient
    assert home.balanced()
    assert {one.reason for one in report.rejects if one.healed} == {"limit_exceeded"}
    assert all(not one.healed for one in report.rejects if one.reason != "limit_exceeded")
    before = home.tables.versions()
    again = home.replay()
    assert (again.healed, again.gained, home.tables.versions()) == (0, {}, before)
    home.refresh()
    assert home.tables.versions() == before
    assert home.state() == lenient


def test_only_the_rejects_asked_for_are_replayed(tmp_path: Path, root: Path, lenient: dict[str, object]) -> None:
    home = Home(tmp_path / "home", root)
    home.refresh(STRICT)
    assert home.replay(reason="invalid_json").healed == 0
    first = home.replay(table="rejects.urza_layer")
    assert [(one.table, one.healed) for one in first.rejects] == [("rejects.urza_layer", 1)]
    assert first.gained == {"urza.layer": 1}
    assert home.balanced()
    home.replay(reason="limit_exceeded")
    assert home.state() == lenient


def test_a_replay_without_a_fix_changes_nothing(tmp_path: Path, root: Path) -> None:
    home = Home(tmp_path / "home", root)
    home.refresh(STRICT)
    state, versions = home.state(), home.tables.versions()
    report = home.replay(limits=STRICT)
    assert (home.state(), home.tables.versions()) == (state, versions)
    counted = sum(home.tables.count(name) for name in home.tables.names() if name.startswith("rejects."))
    assert (report.healed, sum(one.failing for one in report.rejects), report.gained) == (0, counted, {})


def test_kept_bytes_are_enough_where_the_export_is_gone(tmp_path: Path, root: Path, lenient: dict[str, object]) -> None:
    home = Home(tmp_path / "home", root)
    home.refresh(STRICT)
    shutil.move(root, tmp_path / "elsewhere")
    report = home.replay()
    left = {(one.table, one.reason, one.failing) for one in report.rejects if one.failing and one.reason == "limit_exceeded"}
    assert (left, report.files_missing) == ({("rejects.simic_registry_snapshot", "limit_exceeded", 1)}, 1)
    shutil.move(tmp_path / "elsewhere", root)
    assert home.replay().files_missing == 0
    assert home.state() == lenient


FILE_FIXES: dict[str, tuple[str, Callable[[], bytes], Limits]] = {
    "bytes of the file": ("tolaria/system_state/a.ndjson", lambda: packed(LINES, ".ndjson"), Limits(file_bytes=10)),
    "unpacked bytes": (
        "tolaria/system_state/a.ndjson.gz",
        lambda: packed([*LINES[:3], " " * 9_000_000, *LINES[3:]], ".ndjson.gz"),
        Limits(unpacked_bytes=5_000_000),
    ),
    "a long line": ("tolaria/system_state/a.ndjson", lambda: packed(LINES, ".ndjson"), Limits(record_bytes=100)),
    "a long message": (
        "tolaria/system_state/a.wal",
        lambda: wal(one.SerializeToString() for one in PACKETS),
        Limits(record_bytes=50),
    ),
    "a snapshot": ("simic/registry_snapshot/seed_registry.json", lambda: b'{"a": 1, "b": "x"}', Limits(json_file_bytes=5)),
}


@pytest.mark.parametrize("what", FILE_FIXES)
def test_a_file_that_was_refused_is_read_from_where_it_was_not(tmp_path: Path, what: str) -> None:
    file, data, limits = FILE_FIXES[what]
    limits = limits.model_copy(update={"compression_ratio": 10**6})
    generous = Limits(compression_ratio=10**6)
    root = tmp_path / "exports"
    (root / file).parent.mkdir(parents=True)
    (root / file).write_bytes(data())
    fresh, home = Home(tmp_path / "fresh", root), Home(tmp_path / "home", root)
    fresh.refresh(generous)
    home.refresh(limits)
    assert "limit_exceeded" in str(home.state()) and home.balanced()
    (root / file).rename(root / file.replace("a.", "renamed."))
    assert home.replay(limits=generous).healed > 0
    assert {name: found for name, found in home.state().items() if not name.startswith("rejects.")} == {
        name: found for name, found in fresh.state().items() if not name.startswith("rejects.")
    }
    assert home.balanced()


class Stop(BaseException):
    """The process ends here."""


@pytest.mark.parametrize(("stop", "moment"), [(0, "before"), (5, "after"), (9, "before")])
def test_a_stop_around_any_commit_is_made_good_by_the_next_ingest_or_replay(
    tmp_path: Path, root: Path, lenient: dict[str, object], stop: int, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home", root)
    home.refresh(STRICT)
    write, commits = TableStore.write, iter(range(1000))

    def killed(*args: object, **how: object) -> int:
        number = next(commits)
        if number == stop and moment == "before":
            raise Stop
        version = write(*args, **how)  # type: ignore[arg-type]
        if number == stop:
            raise Stop
        return version

    with monkeypatch.context() as patch:
        patch.setattr(TableStore, "write", killed)
        with pytest.raises(Stop):
            home.replay()
    assert (home.home / DIRECTORY).is_dir()
    if stop % 2:
        home.refresh(STRICT)
    else:
        assert home.replay(limits=STRICT).healed == 0
    assert home.state() == lenient
    assert not (home.home / DIRECTORY).exists()


def test_a_table_that_was_built_anew_meanwhile_is_left_alone(
    tmp_path: Path, root: Path, lenient: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home", root)
    home.refresh(STRICT)
    with monkeypatch.context() as patch:
        patch.setattr("lake.replay.run.finish", lambda *_: {})
        home.replay()
    shutil.rmtree(home.tables.root)
    home.refresh()
    assert home.state() == lenient


def test_arrivals_stay_as_they_were(tmp_path: Path) -> None:
    """A healed record is as old as its export: what came later stays current."""
    root = tmp_path / "exports"
    folder = root / "urza/blueprint"
    folder.mkdir(parents=True)
    home = Home(tmp_path / "home", root)
    for name, text in (("a", LONG), ("b", "new")):
        (folder / f"{name}.ndjson").write_text(json.dumps({"blueprint_id": "b", "descriptor": {"name": text}}) + "\n")
        home.refresh(STRICT)
    assert home.replay().healed == 1
    assert home.tables.read("urza.blueprint").column("descriptor_name").to_pylist() == ["new"]
    assert home.balanced()


def test_the_command_lists_saves_and_replays(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home", root)
    home.refresh(STRICT)

    def tamiyo(*arguments: str) -> dict[str, Any]:
        where = ["--home", str(home.home), "--exports", str(root), "--json"]
        found = CliRunner().invoke(app, ["rejects", *arguments, *where])
        assert found.exit_code == 0, found.output
        return dict(json.loads(found.stdout))

    listed = tamiyo("--reason", "invalid_json")["records"]
    assert {row["raw"] for row in listed} == {"not json"} and len(listed) == 2
    saved = tamiyo("--reason", "torn_record", "--raw", str(tmp_path / "raw"))["saved"]
    (path,) = map(Path, saved)
    assert FILES["tolaria/system_state/b.binpb"].endswith(path.read_bytes()) and path.stat().st_size > 10
    monkeypatch.setenv("TAMIYO_LIMITS", '{"string_bytes": 20}')
    assert tamiyo("--replay")["healed"] == 0
    monkeypatch.delenv("TAMIYO_LIMITS")
    replayed = tamiyo("--replay", "--table", "rejects.tolaria_layer_telemetry")
    assert replayed["healed"] > 0 and replayed["gained"]["tolaria.layer_telemetry"] > 0
    text = CliRunner().invoke(app, ["rejects", "--replay", "--home", str(home.home), "--exports", str(root)])
    assert "healed" in text.output and "tamiyo run" in text.output
    for wrong in (["--reason", "whim"], ["--replay", "--raw", "x"], ["--table", "kasmina.seed_state"]):
        assert CliRunner().invoke(app, ["rejects", *wrong, "--home", str(home.home)]).exit_code == 2
