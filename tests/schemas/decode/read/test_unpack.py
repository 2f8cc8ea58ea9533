"""Damaged text exports: what lies before and after the damage is kept, and the damage is said once. Marks and zeros."""

import gzip
import json
import random
from pathlib import Path

import pytest
import zstandard

from tests.schemas.decoding import Result, decode

FOLDER, SEEDS = "kasmina/seed_state", "kasmina.seed_state"
BOM = b"\xef\xbb\xbf"


def line(number: int) -> bytes:
    return json.dumps({"seed_id": f"s{number}", "training_run_id": "r", "timestamp_ns": number + 1}).encode() + b"\n"


LINES = [line(number) for number in range(300)]
TEXT = b"".join(LINES)
MEMBERS = [b"".join(LINES[first : first + 100]) for first in (0, 100, 200)]
PACK = {".ndjson.gz": gzip.compress, ".ndjson.zst": zstandard.ZstdCompressor(write_checksum=True).compress}


def ids(result: Result) -> list[int]:
    return [int(row["seed_id"][1:]) for row in result.rows(SEEDS)]


def blocks(parts: list[bytes]) -> tuple[bytes, list[int]]:
    """One zstd frame with a flushed block for each part, and the offset after each."""
    packer, packed, ends = zstandard.ZstdCompressor().compressobj(), b"", []
    for part in parts:
        packed += packer.compress(part) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        ends.append(len(packed))
    return packed + packer.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH), ends


@pytest.mark.parametrize("extension", PACK)
def test_a_cut_at_any_byte_is_said_once_and_costs_no_complete_record(tmp_path: Path, extension: str) -> None:
    members = [PACK[extension](member) for member in MEMBERS]
    whole, ends = b"".join(members), [sum(map(len, members[: n + 1])) for n in range(3)]
    for cut in [*range(1, len(whole), 7), ends[1] - 1, ends[2] - 1, ends[2] - 5]:
        result = decode(tmp_path, FOLDER, f"x{extension}", whole[:cut])
        complete = 100 * sum(end <= cut for end in ends)
        assert ids(result)[:complete] == list(range(complete)), cut
        assert result.reasons.count("unreadable_file") == (0 if cut in ends else 1), cut
        assert len(result.reasons) <= 2 and result.balanced()


def test_blocks_of_a_cut_zstd_frame_are_all_there(tmp_path: Path) -> None:
    whole, ends = blocks(MEMBERS)
    for cut, rows in ((ends[1], 200), (ends[1] + 3, 200), (ends[2], 300), (ends[0] - 1, 0)):
        result = decode(tmp_path, FOLDER, "x.ndjson.zst", whole[:cut])
        assert (ids(result), result.reasons.count("unreadable_file")) == (list(range(rows)), 1)


@pytest.mark.parametrize("extension", PACK)
def test_a_damaged_member_costs_neither_the_one_before_nor_the_one_after(tmp_path: Path, extension: str) -> None:
    members = [PACK[extension](member) for member in MEMBERS]
    chance = random.Random(1)
    for _ in range(150):
        damaged = bytearray(members[1])
        at = chance.randrange(len(damaged))
        damaged[at] ^= 1 << chance.randrange(8)
        result = decode(tmp_path, FOLDER, f"x{extension}", members[0] + bytes(damaged) + members[2])
        found = {row["seed_id"] for row in result.rows(SEEDS)}
        assert found >= {f"s{number}" for number in (*range(100), *range(200, 300))}, at
        assert result.balanced() and result.reasons.count("unreadable_file") <= 1
    for lost in (1, 5, 30):
        result = decode(tmp_path, FOLDER, f"x{extension}", members[0] + members[1][:-lost] + members[2])
        assert set(ids(result)) >= {*range(100), *range(200, 300)}
        assert "unreadable_file" in result.reasons


@pytest.mark.parametrize("extension", PACK)
@pytest.mark.parametrize("tail", [b"garbage", b"\0" * 5000, b"\0", b"{}\n", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"])
def test_bytes_after_a_complete_member_are_at_most_one_reject(tmp_path: Path, extension: str, tail: bytes) -> None:
    result = decode(tmp_path, FOLDER, f"x{extension}", PACK[extension](TEXT) + tail)
    assert ids(result) == list(range(300))
    assert result.reasons in ([], ["unreadable_file"])


@pytest.mark.parametrize("extension", PACK)
def test_a_wrong_checksum_is_said_and_keeps_the_records(tmp_path: Path, extension: str) -> None:
    whole = bytearray(PACK[extension](TEXT))
    whole[-5 if extension == ".ndjson.gz" else -1] ^= 1
    result = decode(tmp_path, FOLDER, f"x{extension}", bytes(whole))
    assert (ids(result), result.reasons) == (list(range(300)), ["unreadable_file"])


@pytest.mark.parametrize("extension", [".ndjson", *PACK])
@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-32-be"])
def test_marks_of_encodings_are_read_at_every_place(tmp_path: Path, extension: str, mark: str) -> None:
    parts = [part.decode() for part in MEMBERS]
    joined = "\ufeff" + "\ufeff".join(parts) + "\ufeff\r\n \ufeff \ufeff" + line(300).decode()
    data = joined.encode("utf-8" if mark == "utf-8-sig" else mark)
    pack = PACK.get(extension, bytes)
    result = decode(tmp_path, FOLDER, f"x{extension}", pack(data))
    assert (ids(result), result.reasons) == (list(range(301)), [])


def test_what_is_no_character_costs_its_line(tmp_path: Path) -> None:
    good = "".join(part.decode() for part in LINES[:5])
    for encoding, bad in (("utf-16-le", b"\x00\xd8"), ("utf-32-le", b"\xff\xff\xff\xff")):
        wide = ("\ufeff" + good).encode(encoding) + '{"seed_id": "'.encode(encoding) + bad + '"}\n'.encode(encoding)
        result = decode(tmp_path, FOLDER, "x.ndjson", wide + good.encode(encoding) + b"\x20")
        assert ids(result) == [*range(5), *range(5)]
        assert result.reasons == ["invalid_json", "invalid_json"]


def test_zeros_around_a_record_cost_nothing_but_themselves(tmp_path: Path) -> None:
    for zeros in (1, 3, 512, 70_000):
        hole = b"\0" * zeros
        result = decode(tmp_path, FOLDER, "x.ndjson", LINES[0] + hole + LINES[1] + LINES[2].strip() + hole)
        assert (ids(result), result.reasons) == ([0, 1, 2], ["invalid_json"] * 2)
        assert result.balanced()
    huge = decode(tmp_path, FOLDER, "x.ndjson", LINES[0].strip() + b"\0" * (20 << 20))
    assert (ids(huge), huge.reasons) == ([0], ["invalid_json"])
