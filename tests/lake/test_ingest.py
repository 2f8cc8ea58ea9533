"""Ingest: exactly once per export and table, arrivals, conservation, crashes between commits, files that change."""

import errno
import json
import os
import random
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import schemas.decode.together
from lake.exports.folders import Exports
from lake.exports.ledger import Ledger, present
from lake.ingest import intake
from lake.ingest.ingest import Ingest
from lake.store.table_store import TableStore
from schemas.contracts import TABLES
from schemas.decode.together import Source
from schemas.digest import table_digest
from schemas.errors import StorageError
from schemas.leyline import leyline_pb2 as pb
from tests.schemas.decoding import wal


def packet(run: str, number: int, **more: object) -> dict[str, object]:
    return {
        "training_run_id": run,
        "packet_id": f"{run}-{number}",
        "timestamp_ns": str(1000 + number),
        "training_loss": 0.5,
        "layers": [{"layer_id": "l0", "loss": 0.25}],
        "seed_states": [{"seed_id": "s", "stage": "SEED_STAGE_DORMANT"}],
        **more,
    }


def urza(blueprint: str, tier: str) -> dict[str, object]:
    return {"blueprint_id": blueprint, "descriptor": {"blueprint_id": blueprint, "name": tier}}


class Site:
    """An exports root and a home."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "exports"
        self.home = folder / "home"
        self.root.mkdir(parents=True)
        self.tables = TableStore(self.home)

    @property
    def ingest(self) -> Ingest:
        return Ingest(self.home, Exports(self.root), self.tables)

    def put(self, file: str, *records: object) -> Path:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" if not isinstance(record, str) else record for record in records))
        return path

    def digests(self) -> dict[str, str]:
        return {name: table_digest(table, self.tables.read(name)) for name, table in TABLES.items()}

    def balanced(self) -> bool:
        return all(self.ingest.accounting(name).balanced for name in TABLES)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_rows_duplicates_and_rejects_are_all_accounted_for(site: Site) -> None:
    site.put("tolaria/system_state/a.ndjson", packet("a", 1), packet("a", 2), packet("a", 1), "not json\n", {"packet_id": "x"})
    report = site.ingest.refresh()
    assert report.runs["tolaria.system_state"] == {"a"}
    counts = site.ingest.accounting("tolaria.system_state")
    assert (counts.rows_read, counts.kept, counts.duplicates, counts.rejected) == (5, 2, 1, 2)
    assert site.balanced()
    assert site.tables.read("rejects.tolaria_system_state").column("position").null_count == 0
    assert site.ingest.run_ids() == ["a"]


def test_conservation_sees_a_lost_row_and_a_lost_reject(site: Site) -> None:
    site.put("tolaria/system_state/a.ndjson", packet("a", 1), packet("b", 1), "not json\n")
    site.ingest.refresh()
    assert site.balanced()
    site.tables.write("tolaria.system_state", TABLES["tolaria.system_state"].empty(), runs=["b"])
    assert not site.ingest.accounting("tolaria.system_state").balanced
    site.tables.write("rejects.tolaria_system_state", site.tables.read("rejects.tolaria_system_state").slice(0, 0))
    assert not site.ingest.accounting("tolaria.system_state").balanced


def test_nothing_new_writes_nothing(site: Site) -> None:
    site.put("tolaria/system_state/a.ndjson", packet("a", 1))
    assert site.ingest.refresh().wrote
    before = {p: p.stat().st_mtime_ns for p in site.home.rglob("*") if p.is_file()}
    report = site.ingest.refresh()
    assert not report.wrote
    assert {p: p.stat().st_mtime_ns for p in site.home.rglob("*") if p.is_file()} == before


def test_a_copy_a_rename_and_a_restored_backup_change_nothing(site: Site) -> None:
    path = site.put("urza/blueprint/a.ndjson", urza("p", "one"))
    site.ingest.refresh()
    versions, digests = site.tables.versions(), site.digests()
    shutil.copy(path, path.with_name("copy.ndjson"))
    path.rename(path.with_name("renamed.ndjson"))
    os.utime(path.with_name("copy.ndjson"))
    assert not site.ingest.refresh().wrote
    assert (site.tables.versions(), site.digests()) == (versions, digests)


def test_a_then_b_then_a_are_three_arrivals_and_a_is_current(site: Site) -> None:
    def name() -> object:
        return site.tables.read("urza.blueprint").column("descriptor_name").to_pylist()

    for expected in ("one", "two", "one", "two"):
        site.put("urza/blueprint/a.ndjson", urza("p", expected))
        assert site.ingest.refresh().wrote
        assert name() == [expected]
        assert site.balanced()
    entries = Ledger(site.home).entries()
    assert [e.event for e in entries].count("arrived") == 4
    assert [e.seq for e in entries] == list(range(1, len(entries) + 1))


def test_an_older_arrival_is_not_current_because_it_is_read_later(site: Site) -> None:
    site.put("urza/blueprint/b.ndjson", urza("p", "one"))
    site.ingest.refresh()
    site.put("urza/blueprint/a.ndjson", urza("p", "two"))
    site.ingest.refresh()
    shutil.rmtree(site.home / "tables")
    site.ingest.refresh()
    assert site.tables.read("urza.blueprint").column("descriptor_name").to_pylist() == ["two"]


def test_ties_within_one_scan_are_the_same_under_every_name(tmp_path: Path) -> None:
    found = set()
    for number, names in enumerate((("a", "b"), ("b", "a"))):
        site = Site(tmp_path / str(number))
        for name, tier in zip(names, ("one", "two"), strict=True):
            site.put(f"urza/blueprint/{name}.ndjson", urza("p", tier))
        site.ingest.refresh()
        found.add(site.digests()["urza.blueprint"])
    assert len(found) == 1


def test_two_registries_with_the_same_bytes_are_two_exports(site: Site) -> None:
    for name in ("layer_type", "activation_type"):
        site.put(f"simic/registry_snapshot/{name}_registry.json", {"unknown": 1})
    site.ingest.refresh()
    assert sorted(site.tables.read("simic.registry_snapshot").column("registry").to_pylist()) == [
        "activation_type",
        "layer_type",
    ]


def test_other_runs_keep_their_files(site: Site) -> None:
    site.put("tolaria/system_state/a.ndjson", packet("a", 1))
    site.ingest.refresh()
    before = set(site.tables.files("tolaria.system_state"))
    site.put("tolaria/system_state/b.ndjson", packet("b", 1))
    assert site.ingest.refresh().runs["tolaria.system_state"] == {"b"}
    assert before <= set(site.tables.files("tolaria.system_state"))


def test_unfinished_and_foreign_files_are_not_read(site: Site) -> None:
    for name in (".a.ndjson", "a.ndjson.tmp", ".hidden/a.ndjson"):
        site.put(f"tolaria/system_state/{name}", packet("a", 1))
    site.put("tolaria/nothing/a.ndjson", packet("a", 1))
    site.put("tolaria/system_state/a.csv", "x")
    site.put("readme.txt", "x")
    report = site.ingest.refresh()
    assert not report.wrote
    assert {u.file for u in report.unplaced} == {"tolaria/nothing/a.ndjson", "tolaria/system_state/a.csv", "readme.txt"}


def test_what_can_not_be_read_is_reported_and_costs_nobody_else(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put("tolaria/system_state/a.ndjson", packet("a", 1))
    locked = site.put("tolaria/system_state/b.ndjson", packet("b", 1))
    os.mkfifo(locked.with_name("pipe.ndjson"))
    locked.with_name("link.ndjson").symlink_to("nowhere")
    opened = Path.open

    def refused(path: Path, *args: object, **how: object) -> object:
        if path == locked:
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **how)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refused)
    report = site.ingest.refresh()
    reasons = {u.file.rpartition("/")[2]: u.reason for u in report.unplaced}
    assert reasons == {
        "b.ndjson": "not readable: Permission denied",
        "pipe.ndjson": "not a regular file",
        "link.ndjson": "a link to nothing",
    }
    assert site.ingest.run_ids() == ["a"]


def test_no_root_and_unknown_folders_are_errors(site: Site) -> None:
    with pytest.raises(StorageError, match="tolaria/nothing"):
        site.ingest.refresh(["tolaria/nothing"])
    site.root.rmdir()
    with pytest.raises(StorageError, match="exports root"):
        site.ingest.refresh()


def test_only_the_folders_asked_for_are_read(site: Site) -> None:
    site.put("tolaria/system_state/a.ndjson", packet("a", 1))
    site.put("urza/blueprint/a.ndjson", urza("p", "one"))
    assert set(site.ingest.refresh(["urza/blueprint"]).exports) == {"urza/blueprint"}
    assert set(site.ingest.refresh().exports) == {"tolaria/system_state"}


class Stop(BaseException):
    """The process ends here."""


def stopping(write: Callable[..., int], stop: int, moment: str) -> Callable[..., int]:
    """A write that ends the process before or after commit number `stop`."""
    commits = count()

    def killed(*args: object, **how: object) -> int:
        number = next(commits)
        if number == stop and moment == "before":
            raise Stop
        version = write(*args, **how)
        if number == stop:
            raise Stop
        return version

    return killed


SEEDS = [{"seed_id": "s", "training_run_id": run, "timestamp_ns": str(5 + n // 2)} for run in "ab" for n in range(4)]
STOPS = {
    "kasmina/seed_state": ([*SEEDS, "not json\n", {"seed_id": "x"}], (0, 1)),
    "tolaria/system_state": (
        [packet("a", 1), packet("a", 1), packet("b", 2), "not json\n", packet("a", 3, layers=[{"loss": 1.0}])],
        (2, 6, 9),
    ),
}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("folder", STOPS)
def test_a_stop_around_any_commit_loses_and_doubles_nothing(
    tmp_path: Path, folder: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, stops = STOPS[folder]
    whole = Site(tmp_path / "whole")
    whole.put(f"{folder}/a.ndjson", *records)
    whole.ingest.refresh()
    write = TableStore.write
    for stop in stops:
        site = Site(tmp_path / f"{stop}")
        site.put(f"{folder}/a.ndjson", *records)
        with monkeypatch.context() as patch:
            patch.setattr(TableStore, "write", stopping(write, stop, moment))
            with pytest.raises(Stop):
                site.ingest.refresh()
        site.ingest.refresh()
        assert site.digests() == whole.digests()
        assert site.balanced()
        for name in TABLES:
            assert site.ingest.accounting(name) == whole.ingest.accounting(name)
        assert not (site.home / "staging").exists()


def test_a_file_that_changes_while_it_is_read_is_left_to_the_next_refresh(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put("tolaria/system_state/b.ndjson", packet("b", 1))
    path = site.put("tolaria/system_state/a.ndjson", packet("a", 1))
    decode, together = schemas.decode.decode_file, schemas.decode.together.decode_together

    def changing(*args: object, **how: object) -> object:
        if args[0] == path:
            site.put("tolaria/system_state/a.ndjson", packet("a", 1), packet("a", 2))
        return decode(*args, **how)  # type: ignore[arg-type]

    def changing_together(sources: list[Source], *args: object) -> object:
        if path in [source.path for source in sources]:
            site.put("tolaria/system_state/a.ndjson", packet("a", 1), packet("a", 2))
        return together(sources, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("lake.ingest.intake.decode_file", changing)
        patch.setattr("lake.ingest.intake.decode_together", changing_together)
        report = site.ingest.refresh()
    assert report.vanished == ["tolaria/system_state/a.ndjson"]
    assert site.ingest.run_ids() == ["b"]
    site.ingest.refresh()
    assert site.ingest.run_ids() == ["a", "b"]
    assert site.tables.count("tolaria.system_state") == 3
    assert site.balanced()


def test_small_groups_and_chunks_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [packet(run, n % 7) for run in "abcde" for n in range(20)]
    sites = [Site(tmp_path / "whole"), Site(tmp_path / "small")]
    for number, site in enumerate(sites):
        if number:
            monkeypatch.setattr("lake.ingest.commit.GROUP_ROWS", 10)
            monkeypatch.setattr("lake.ingest.ingest.BATCH_BYTES", 1)
        for part in range(4):
            site.put(f"tolaria/system_state/{part}.ndjson", *records[part::4])
        site.ingest.refresh()
        assert site.balanced()
    assert sites[0].digests() == sites[1].digests()


def telemetry(packet: int, metrics: int) -> dict[str, object]:
    names = [{"name": f"m{number}", "value": number} for number in range(metrics)]
    return {"packet_id": f"t-{packet}", "timestamp": "2026-11-23T05:33:55Z", "source_subsystem": "tolaria", "metrics": names}


def test_tables_without_runs_are_merged_in_parts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites = [Site(tmp_path / "whole"), Site(tmp_path / "small")]
    for number, site in enumerate(sites):
        if number:
            monkeypatch.setattr("lake.ingest.commit.GROUP_ROWS", 7)
        site.put("tolaria/telemetry/a.ndjson", *(telemetry(packet, 3) for packet in (1, 2, 3, 2, 4, 5, 6)))
        site.ingest.refresh()
        site.put("tolaria/telemetry/b.ndjson", *(telemetry(packet, 4) for packet in (3, 9, 10, 11, 12)))
        site.ingest.refresh()
        assert site.balanced()
        assert site.tables.count("telemetry.metric") == 6 * 3 + 1 + 4 * 4
    assert sites[0].digests() == sites[1].digests()


def test_order_grouping_and_repetition_of_files_change_no_digest(tmp_path: Path) -> None:
    records = [packet(run, n % 9, training_loss=0.1 * (n + 1)) for run in "ab" for n in range(15)]
    found = set()
    for seed in range(4):
        shuffled = records[:]
        chance = random.Random(seed)
        chance.shuffle(shuffled)
        site = Site(tmp_path / str(seed))
        cut = chance.randrange(1, len(shuffled))
        site.put("tolaria/system_state/one.ndjson", *shuffled[:cut])
        if seed % 2:
            site.ingest.refresh()
        site.put("tolaria/system_state/two.ndjson", *shuffled[cut:], *shuffled[: seed * 2])
        site.ingest.refresh()
        assert site.balanced()
        found.add(json.dumps(site.digests()))
    assert len(found) == 1


def test_a_bad_message_inside_an_envelope_is_a_reject_of_the_bus(site: Site) -> None:
    payloads = [b"\xff\xff", b"", pb.TelemetryPacket(packet_id="t", metrics=[{"name": "m", "value": 1}]).SerializeToString()]
    envelopes = [pb.BusEnvelope(message_type=pb.BUS_MESSAGE_TYPE_TELEMETRY, payload=one) for one in payloads]
    path = site.root / "oona/envelope/bus.wal"
    path.parent.mkdir(parents=True)
    path.write_bytes(wal([envelope.SerializeToString() for envelope in envelopes]))
    site.ingest.refresh()
    reasons = site.tables.read("rejects.oona_telemetry_metric").column("reason").to_pylist()
    assert sorted(reasons) == ["invalid_protobuf", "missing_id"]
    assert site.tables.count("telemetry.metric") == 1
    assert site.balanced()


def test_a_removed_table_is_built_again_from_the_exports(site: Site) -> None:
    site.put("tolaria/system_state/a.ndjson", packet("a", 1), "not json\n")
    site.put("kasmina/seed_state/a.ndjson", {"seed_id": "s", "training_run_id": "a", "timestamp_ns": "1001", "alpha": 0.5})
    site.ingest.refresh()
    digests = site.digests()
    site.tables.remove("kasmina.seed_state")
    site.ingest.refresh()
    assert site.digests() == digests
    assert site.balanced()


def test_a_damaged_ledger_names_its_line_and_a_torn_one_is_healed(site: Site) -> None:
    site.put("tolaria/system_state/a.ndjson", packet("a", 1))
    site.ingest.refresh()
    ledger = site.home / "exports.ndjson"
    ledger.write_bytes(ledger.read_bytes() + b'{"seq": 2, "sc')
    site.put("tolaria/system_state/b.ndjson", packet("b", 1))
    site.ingest.refresh()
    assert [e.seq for e in Ledger(site.home).entries()] == [1, 2]
    ledger.write_bytes(b"x" + ledger.read_bytes()[1:])
    with pytest.raises(StorageError, match=r"exports\.ndjson: line 1"):
        site.ingest.refresh()


def test_the_ledger_knows_what_is_present(site: Site) -> None:
    path = site.put("urza/blueprint/a.ndjson", urza("p", "one"))
    site.ingest.refresh()
    folder = "urza/blueprint"
    assert len(present(Ledger(site.home).entries(), [folder])) == 1
    path.unlink()
    site.ingest.refresh()
    assert len(present(Ledger(site.home).entries(), [folder])) == 0
    assert site.tables.count("urza.blueprint") == 1


def test_the_exports_of_the_existing_system(site: Site, esper_exports: Path) -> None:
    ingest = Ingest(site.home, Exports(esper_exports), site.tables)
    ingest.refresh()
    assert site.tables.count("tolaria.system_state") == 241
    assert site.tables.count("urza.blueprint") == 40
    assert site.tables.count("simic.registry_snapshot") == 516
    reasons = site.tables.read("rejects.kasmina_seed_state").column("reason")
    assert reasons.to_pylist() == ["missing_training_run_id"] * 200
    assert all(ingest.accounting(name).balanced for name in TABLES)
    assert isinstance(site.tables.read("tolaria.system_state"), pa.Table)


def failing(real: Callable[..., Any], error: BaseException) -> Callable[..., Any]:
    """A decoder that raises at files named bad."""

    def decode(*how: Any, **more: Any) -> Any:
        files = [more["file"]] if "file" in more else [source.file for source in how[0]]
        if any("bad" in file for file in files):
            raise error
        return real(*how, **more)

    return decode


@pytest.mark.parametrize("error", [ZeroDivisionError("a fault of ours"), KeyError("x"), OSError(5, "Input/output error")])
def test_an_export_at_which_anything_fails_costs_itself_and_is_named(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    for name in ("a", "bad", "c"):
        site.put(f"tolaria/system_state/{name}.ndjson", packet(name, 1))
    site.put("urza/blueprint/u.ndjson", urza("p", "one"))
    with monkeypatch.context() as patch:
        for name in ("decode_file", "decode_together"):
            patch.setattr(intake, name, failing(getattr(intake, name), error))
        report = site.ingest.refresh()
    assert site.ingest.run_ids() == ["a", "c"] and site.tables.count("urza.blueprint") == 1
    rejects = site.tables.read("rejects.tolaria_system_state").to_pylist()
    if isinstance(error, OSError):
        assert list(report.failed) == ["tolaria/system_state/bad.ndjson"] and not rejects
        assert site.ingest.refresh().wrote  # it is tried again
        assert site.ingest.run_ids() == ["a", "bad", "c"]
    else:
        (reject,) = rejects
        assert (reject["file"], reject["reason"]) == ("tolaria/system_state/bad.ndjson", "unreadable_file")
        assert type(error).__name__ in reject["message"]
    assert site.balanced()


def test_a_full_disk_is_one_sentence_with_the_place(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put("tolaria/system_state/a.ndjson", packet("a", 1))
    full = failing(intake.decode_file, OSError(errno.ENOSPC, "No space left on device"))
    site.put("tolaria/system_state/bad.ndjson", packet("b", 1))
    monkeypatch.setattr(intake, "decode_file", full)
    monkeypatch.setattr(intake, "decode_together", failing(intake.decode_together, OSError(errno.ENOSPC, "No space")))
    with pytest.raises(StorageError, match="expected room on its disk") as caught:
        site.ingest.refresh()
    assert str(site.home) in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_that_can_not_be_written_stops_its_own_folder_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put("kasmina/seed_state/s.ndjson", {"training_run_id": "r", "seed_id": "s", "timestamp_ns": 5})
    site.put("urza/blueprint/u.ndjson", urza("p", "one"))
    real = TableStore.write

    def write(tables: TableStore, name: str, *how: Any, **more: Any) -> int:
        if name == "kasmina.seed_state":
            raise StorageError(f"table {name}: expected to write it, found a fault")
        return real(tables, name, *how, **more)

    with monkeypatch.context() as patch:
        patch.setattr(TableStore, "write", write)
        with pytest.raises(StorageError, match=r"kasmina\.seed_state: expected"):
            site.ingest.refresh()
    assert site.tables.count("urza.blueprint") == 1
    site.ingest.refresh()
    assert site.tables.count("kasmina.seed_state") == 1 and site.balanced()


BROKEN: dict[str, Callable[[Path], None]] = {
    "the newest commit is cut": lambda log: newest(log).write_bytes(newest(log).read_bytes()[:30]),
    "the newest commit is zeros": lambda log: newest(log).write_bytes(bytes(200)),
    "the first commit is garbage": lambda log: sorted(log.glob("*.json"))[0].write_bytes(b"{}{}[]\xff"),
    "all commits are gone": lambda log: [path.unlink() for path in log.iterdir()].clear(),
}


def newest(log: Path) -> Path:
    return sorted(log.glob("*.json"))[-1]


@pytest.mark.parametrize("damage", BROKEN)
@pytest.mark.parametrize("name", ["tolaria.system_state", "rejects.tolaria_system_state", "kasmina.seed_state"])
def test_a_broken_log_of_a_table_is_told_and_the_table_built_again(site: Site, damage: str, name: str) -> None:
    site.put("tolaria/system_state/a.ndjson", packet("a", 1), packet("b", 1), "not json\n")
    site.put("urza/blueprint/u.ndjson", urza("p", "one"))
    site.ingest.refresh()
    digests = site.digests()
    BROKEN[damage](site.tables.path(name) / "_delta_log")
    site.put("tolaria/system_state/b.ndjson", packet("a", 1))
    report = site.ingest.refresh()
    assert site.digests() == digests and site.balanced()
    assert site.tables.count("rejects.tolaria_system_state") == 1
    for told in report.rebuilt.values():
        assert "expected" in told and "found" in told and "built again" in told and "\n" not in told
    assert damage == "all commits are gone" or name in report.rebuilt


def test_a_broken_derived_table_is_removed_for_the_run_to_make_it_again(site: Site) -> None:
    site.put("urza/blueprint/u.ndjson", urza("p", "one"))
    site.ingest.refresh()
    site.tables.write("coverage.numbers", pa.table({"key": ["a"]}))
    newest(site.tables.path("coverage.numbers") / "_delta_log").write_bytes(b"{")
    assert site.ingest.refresh(["urza/blueprint"]).rebuilt == {} and site.tables.exists("coverage.numbers")
    report = site.ingest.refresh()
    assert list(report.rebuilt) == ["coverage.numbers"] and not site.tables.exists("coverage.numbers")
    assert site.tables.count("urza.blueprint") == 1 and site.ingest.refresh().rebuilt == {}
