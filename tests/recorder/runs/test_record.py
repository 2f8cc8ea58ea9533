"""A whole small recording: readable, complete, exact to repeat, and able to go on after a kill."""

import contextlib
import json
import math

import pyarrow as pa
import pytest
import zstandard

from recorder.exports import json_line, write_whole
from recorder.kernels import KERNELS
from recorder.runs import journal as journals
from recorder.runs.hostrun import record_host
from recorder.runs.journal import Journal, journal_path, load_journal, publish, save_journal
from recorder.runs.plan import RecordPlan
from recorder.runs.record import record
from recorder.speech.clock import Clock
from schemas.contracts import FOLDERS
from schemas.decode import decode_file
from schemas.errors import RecordingError
from schemas.leyline import leyline_pb2 as pb

FEW = ("kernel-identity", "kernel-scale", "kernel-layer-norm", "kernel-conv")


def small(root, **changes) -> RecordPlan:
    values = {
        "exports": root,
        "hosts": 2,
        "states": (50,),
        "replicates": 2,
        "replicate_cap": 3,
        "horizons": (20,),
        "graft_steps": (50,),
        "total_steps": 100,
        "sheet_hosts": 1,
        "kernels": 3,
        "rotate_hosts": 1,
        "long_every": 0,
        "data_sets": ("digits",),
        "architectures": ("mlp",),
        "compile_backend": "eager",
    }
    return RecordPlan(**(values | changes))


def decode(root) -> dict[str, pa.Table]:
    """Every contract table of an exports root; fails on a reject."""
    found: dict[str, list[pa.Table]] = {}
    for name, folder in FOLDERS.items():
        for path in sorted((root / name).glob("[!.]*")) if (root / name).is_dir() else ():
            for part in decode_file(path, folder, file=path.name, digest="0" * 64):
                assert not any(table.num_rows for table in part.rejects.values()), path
                for table, rows in part.tables.items():
                    found.setdefault(table, []).append(rows)
    return {name: pa.concat_tables(parts) for name, parts in found.items()}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A recording of two hosts with four kernels in the catalogue; its progress lines, root and tables."""
    root = tmp_path_factory.mktemp("exports")
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recorder.runs.firstphase.KERNELS", {name: KERNELS[name] for name in FEW})
        record(small(root), lambda progress: lines.append(str(progress)))
    return root, lines, decode(root)


def test_no_layer_that_moved_is_said_to_have_stood_still(recorded):
    _, _, tables = recorded
    rows = tables["tolaria.layer_telemetry"].to_pylist()
    assert any(row["update_magnitude"] for row in rows)
    assert not [row for row in rows if row["update_magnitude"] and row["update_frequency"] == 0.0]


def test_every_packet_says_how_training_stands_and_every_seed_how_deep_it_sits(recorded):
    _, _, tables = recorded
    for name, columns in {
        "tolaria.system_state": ("validation_loss", "validation_accuracy", "training_loss", "current_epoch"),
        "kasmina.seed_state": ("layer_depth", "monitored_layers"),
    }.items():
        assert all(row[column] is not None for row in tables[name].to_pylist() for column in columns)


def test_the_plan_comes_first_and_then_progress(recorded):
    _, lines, _ = recorded
    assert lines[0].startswith("recording 2 hosts of seed 1")
    assert lines[-1].startswith("2 of 2 hosts, ")


def test_every_table_of_the_contracts_has_rows_but_the_bus(recorded):
    _, _, tables = recorded
    expected = {name for folder in FOLDERS.values() if folder.system != "oona" for name in folder.tables}
    assert {name for name in expected if name not in tables or not tables[name].num_rows} == set()


def test_every_packet_shows_every_candidate_site_as_a_seed_that_monitors_layers_of_the_host(recorded):
    _, _, tables = recorded
    layers = {row["layer_id"] for row in tables["urza.layer"].to_pylist()}
    for row in tables["kasmina.seed_state"].to_pylist():
        assert row["monitored_layers"]
        assert set(row["monitored_layers"]) <= layers
        assert row["alpha"] is not None
        assert row["capabilities_allowed_blending_methods"] == ["linear", "cosine", "warmup_hold", "sigmoid"]
    first = {row["training_run_id"]: row for row in tables["kasmina.seed_state"].to_pylist()[::-1]}
    assert {row["stage"] for row in first.values()} == {"DORMANT"}


def test_sheets_and_graphs_are_older_than_the_packets_that_need_them(recorded):
    _, _, tables = recorded
    sheets = {row["blueprint_id"]: row for row in tables["urabrask.bsds"].to_pylist()}
    graphs = {row["blueprint_id"]: row["exported_at_ns"] for row in tables["urza.blueprint"].to_pylist()}
    for packet in tables["tolaria.system_state"].to_pylist():
        host = packet["blueprint_id"]
        assert sheets[host]["provenance"] == "HEURISTIC"
        assert max(sheets[host]["issued_at_ns"], graphs[host]) < packet["timestamp_ns"]
    kernels = [row for name, row in sheets.items() if name.startswith("kernel-")]
    start = min(packet["timestamp_ns"] for packet in tables["tolaria.system_state"].to_pylist())
    assert all(row["provenance"] == "URABRASK" and row["issued_at_ns"] < start for row in kernels)


def test_counterfactuals_name_their_state_and_the_identity_does_nothing(recorded):
    root, _, tables = recorded
    packets = {row["packet_id"] for row in tables["tolaria.system_state"].to_pylist()}
    commands = {row["command_id"] for row in tables["tamiyo.command"].to_pylist()}
    for path in (root / "tamiyo" / "field_report").iterdir():
        for line in zstandard.decompress(path.read_bytes()).splitlines():
            report = json.loads(line)
            assert report["packet_id"] in packets
            assert report["command_id"] in commands
            if report["blueprint_id"] == "kernel-identity":
                assert report["control_delta"] == report["treated_delta"]


def test_a_finished_recording_writes_nothing_more(recorded):
    root, _, _ = recorded
    assert record(small(root)) == []


def test_another_grid_is_refused(recorded):
    root, _, _ = recorded
    with pytest.raises(RecordingError, match="another seed"):
        record(small(root, horizons=(30,)))


def test_a_damaged_journal_is_named(tmp_path):
    plan = small(tmp_path)
    journal_path(plan).write_text("{")
    with pytest.raises(RecordingError, match=r"\.recorder-s1\.json"):
        load_journal(plan)


def without_times(records):
    """Records as JSON without what the clock and the machine's speed decide."""
    measured = {"samples_per_s", "hook_latency_ms", "latency_ms", "cpu_util_percent"}

    def strip(value):
        if isinstance(value, dict):
            return {
                key: strip(item)
                for key, item in value.items()
                if key not in measured and not key.endswith(("_ns", "_at", "_ms", "hardware_context", "latency_p95_ms"))
            }
        return [strip(item) for item in value] if isinstance(value, list) else value

    folders = ("tolaria/system_state", "kasmina/seed_state", "tamiyo/field_report", "tamiyo/command")
    return {folder: [strip(json.loads(json_line(item))) for item in records[folder]] for folder in folders}


def test_a_host_shows_the_same_again(tmp_path):
    plan = small(tmp_path)
    runs = [without_times(record_host(plan, plan.host(3), {}, Clock())) for _ in range(2)]
    assert runs[0] == runs[1]


def test_a_host_that_diverges_ends_its_run_and_says_so(tmp_path):
    plan = small(tmp_path)
    spec = plan.host(0)
    wild = type(spec)(**(vars(spec) | {"optimizer": "sgd", "learning_rate": 1e38, "stress": True, "clip": 0.0}))
    records = record_host(plan, wild, {}, Clock())
    packets = [item for item in records.get("tolaria/system_state", ()) if isinstance(item, pb.SystemStatePacket)]
    assert len(packets) < 5
    assert all(not math.isfinite(p.training_loss) or p.training_loss > 0 for p in packets)


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("at", range(1, 6))
def test_a_kill_between_any_two_renames_is_healed(tmp_path, monkeypatch, at):
    plan = small(tmp_path)
    files = [(tmp_path / "urza" / "blueprint" / f"{k}.ndjson", b"{}\n") for k in range(3)]
    calls = 0

    def falling(path, content):
        nonlocal calls
        calls += 1
        if calls == at:
            raise Killed
        return write_whole(path, content)

    monkeypatch.setattr(journals, "write_whole", falling)
    before = Journal(grid=journals.grid_digest(plan))
    with contextlib.suppress(Killed):
        publish(plan, before.model_copy(update={"done": [0]}), files)
    monkeypatch.setattr(journals, "write_whole", write_whole)
    after = load_journal(plan)
    there = [path.exists() for path, _ in files]
    assert there in ([True] * 3, [False] * 3)
    assert after.done == ([0] if all(there) else [])


def test_a_started_batch_is_finished_on_the_next_start(tmp_path):
    plan = small(tmp_path)
    beside = tmp_path / ".a.ndjson.part"
    beside.write_bytes(b"{}\n")
    noted = Journal(grid=journals.grid_digest(plan), done=[0], renames=[(".a.ndjson.part", "a.ndjson")])
    save_journal(plan, noted)
    assert load_journal(plan).renames == []
    assert (tmp_path / "a.ndjson").read_bytes() == b"{}\n"
    assert not beside.exists()
