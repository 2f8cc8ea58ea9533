"""Export files: what is written is what the decoders read, and a name appears with the whole file or not at all."""

import json

import pytest

from recorder.exports import FORMATS, encode, parquet_files, write_whole
from recorder.speech.clock import Clock, rfc3339, stamp
from schemas.contracts import FOLDERS
from schemas.decode import decode_file
from schemas.leyline import leyline_pb2 as pb


def states() -> list[pb.SeedState]:
    clock = Clock()
    return [
        pb.SeedState(seed_id=f"seed-{k}", stage=pb.SEED_STAGE_DORMANT, alpha=0.0, training_run_id="r", timestamp_ns=clock.now())
        for k in range(40)
    ]


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_is_read_back_whole(tmp_path, ending):
    records = states()
    path = tmp_path / f"seeds.{ending}"
    write_whole(path, encode(records, ending))
    rows = []
    for part in decode_file(path, FOLDERS["kasmina/seed_state"], file=path.name, digest="0" * 64):
        assert not any(table.num_rows for table in part.rejects.values())
        rows += part.tables["kasmina.seed_state"].to_pylist()
    assert [row["seed_id"] for row in rows] == [record.seed_id for record in records]
    assert [row["timestamp_ns"] for row in rows] == [record.timestamp_ns for record in records]
    assert {row["alpha"] for row in rows} == {0.0}


def test_parquet_files_hold_the_contract_tables(tmp_path):
    records = states()
    rows = []
    for name, content in parquet_files("kasmina/seed_state", "seeds", records):
        write_whole(tmp_path / name, content)
        for part in decode_file(tmp_path / name, FOLDERS["kasmina/seed_state"], file=name, digest="0" * 64):
            rows += part.tables["kasmina.seed_state"].to_pylist()
    assert [(row["seed_id"], row["alpha"]) for row in rows] == [(record.seed_id, 0.0) for record in records]


def test_plain_json_records_go_to_ndjson_only():
    assert json.loads(encode([{"blueprint_id": "b"}], "ndjson")) == {"blueprint_id": "b"}
    with pytest.raises(ValueError, match=r"binpb.*ndjson"):
        encode([{"blueprint_id": "b"}], "binpb")


def test_a_failed_write_leaves_no_readable_name(tmp_path):
    path = tmp_path / "a.ndjson"
    with pytest.raises(TypeError):
        write_whole(path, "text")
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == []


def test_times_never_repeat_and_survive_their_text_form():
    clock = Clock()
    times = [clock.now() for _ in range(100)]
    assert times == sorted(set(times))
    assert rfc3339(1_795_412_039_464_290_259) == "2026-11-23T05:33:59.464290259Z"
    assert stamp(times[0]).ToNanoseconds() == times[0]
