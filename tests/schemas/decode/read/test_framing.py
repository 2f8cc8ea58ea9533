"""Binary streams: torn tails, damaged prefixes, lengths beyond limits."""

from pathlib import Path

import pytest

from schemas.decode import Limits
from schemas.leyline import leyline_pb2 as pb
from tests.schemas.decoding import Result, binpb, decode, varint, wal

FOLDER = "tolaria/system_state"
STATES = "tolaria.system_state"


def payload(number: int) -> bytes:
    return bytes(
        pb.SystemStatePacket(
            packet_id=f"packet-{number}", training_run_id="run", timestamp_ns=number + 1, training_metrics={"loss": 0.5}
        ).SerializeToString()
    )


def ids(result: Result) -> list[str]:
    return [row["packet_id"] for row in result.rows(STATES)]


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    assert decode(tmp_path, FOLDER, "x.binpb", b"").rows_read == {}
    assert decode(tmp_path, FOLDER, "x.ndjson", b"\n \n").rows_read == {}


@pytest.mark.parametrize("name", ["x.wal", "x.binpb"])
def test_everything_before_a_torn_tail_is_read_and_the_tail_is_kept(tmp_path: Path, name: str) -> None:
    frames = [(wal if name == "x.wal" else binpb)([payload(number)]) for number in range(4)]
    data = b"".join(frames)
    for cut in range(1, len(frames[3]) + 1):
        result = decode(tmp_path, FOLDER, name, data[:-cut])
        assert ids(result) == ["packet-0", "packet-1", "packet-2"]
        assert result.reasons == ([] if cut == len(frames[3]) else ["torn_record"])
        for reject in result.rejects.get("rejects.tolaria_system_state", []):
            assert reject["position"] == sum(map(len, frames[:3]))
            assert reject["raw"] == data[:-cut][reject["position"] :]


@pytest.mark.parametrize("name", ["x.wal", "x.binpb"])
def test_a_damaged_length_costs_no_neighbour(tmp_path: Path, name: str) -> None:
    frames = [(wal if name == "x.wal" else binpb)([payload(number)]) for number in range(12)]
    at = sum(map(len, frames[:5]))
    for damage in (0, 1, 3, 12, 60, 90, 127, 200, 255):
        data = bytearray(b"".join(frames))
        if data[at] == damage:
            continue
        data[at] = damage
        found = set(ids(decode(tmp_path, FOLDER, name, bytes(data))))
        assert found >= {f"packet-{number}" for number in range(12) if number != 5}, damage


def test_bytes_inserted_or_removed_cost_no_neighbour(tmp_path: Path) -> None:
    frames = [binpb([payload(number)]) for number in range(12)]
    expected = {f"packet-{number}" for number in range(12) if number != 5}
    inserted = b"".join([*frames[:5], b"\x00\xff\xff garbage \x07", *frames[5:]])
    removed = b"".join([*frames[:5], frames[5][:-7], *frames[6:]])
    for data in (inserted, removed):
        result = decode(tmp_path, FOLDER, "x.binpb", data)
        assert set(ids(result)) >= expected
        assert result.balanced()
        assert result.reasons


def test_a_record_beyond_the_limit_is_skipped(tmp_path: Path) -> None:
    long = pb.SystemStatePacket(packet_id="x" * 500, training_run_id="run", timestamp_ns=1).SerializeToString()
    data = binpb([payload(0), long, payload(1)])
    result = decode(tmp_path, FOLDER, "x.binpb", data, Limits(record_bytes=400))
    assert (ids(result), result.reasons) == (["packet-0", "packet-1"], ["limit_exceeded"])


def test_a_length_that_promises_terabytes_is_read_as_none(tmp_path: Path) -> None:
    data = binpb([payload(0)]) + varint(2**60) + payload(1) + binpb([payload(2), payload(3)])
    result = decode(tmp_path, FOLDER, "x.binpb", data)
    assert set(ids(result)) >= {"packet-0", "packet-2", "packet-3"}
    assert result.balanced()


def test_chunks_change_nothing(tmp_path: Path) -> None:
    data = binpb([payload(number) for number in range(50)])
    whole = decode(tmp_path, FOLDER, "x.binpb", data)
    for size in (1, 7, 49, 50):
        assert decode(tmp_path, FOLDER, "x.binpb", data, Limits(chunk_records=size)).content() == whole.content()


def test_the_file_limit_is_an_error_of_its_own(tmp_path: Path) -> None:
    result = decode(tmp_path, FOLDER, "x.binpb", binpb([payload(0)]), Limits(file_bytes=10))
    assert result.reasons == ["limit_exceeded"]
    assert "file_bytes" in result.rejects["rejects.tolaria_system_state"][0]["message"]


@pytest.mark.parametrize("name", ["x.wal", "x.binpb"])
def test_zeros_hold_no_record_and_cost_none(tmp_path: Path, name: str) -> None:
    frame = wal if name == "x.wal" else binpb
    long = pb.SystemStatePacket(packet_id="p" * 480, training_run_id="run", timestamp_ns=1)
    long.source_subsystem = "s" * (512 - long.ByteSize() - 2)  # a length whose lowest byte is zero
    records = [payload(0), payload(1), long.SerializeToString(), payload(2)]
    assert len(records[2]) == 512
    for size in (1, 2, 3, 4, 5, 64, 4096, 70_001):
        for hole in range(1, 5):
            data = frame(records[:hole]) + b"\0" * size + frame(records[hole:])
            result = decode(tmp_path, FOLDER, name, data)
            # one length of zero is an empty record
            reason = "missing_training_run_id" if size == len(frame([b""])) else "bad_framing"
            assert (len(ids(result)), result.reasons) == (4, [reason]), (size, hole)
            assert result.balanced()
    pages = b"".join(frame([payload(number)]).ljust(512, b"\0") for number in range(100))
    result = decode(tmp_path, FOLDER, name, pages)
    assert (len(ids(result)), result.reasons) == (100, ["bad_framing"] * 100)
    assert decode(tmp_path, FOLDER, name, b"\0" * 65_536).reasons == ["bad_framing"]


@pytest.mark.parametrize("name", ["x.wal", "x.binpb"])
def test_damage_between_zeros_costs_no_neighbour(tmp_path: Path, name: str) -> None:
    frame = wal if name == "x.wal" else binpb
    frames = [frame([payload(number)]) for number in range(12)]
    for damage in (1, 3, 60, 127, 200):
        holes = [bytes([damage]) + frames[5][1:] if number == 5 else one for number, one in enumerate(frames)]
        result = decode(tmp_path, FOLDER, name, (b"\0" * 64).join(holes))
        assert set(ids(result)) >= {f"packet-{number}" for number in range(12) if number != 5}, damage
        assert result.balanced()
