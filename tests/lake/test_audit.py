"""The audit: a decoder that loses records can't balance its own books, whatever the format; a sound one always balances."""

import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from lake.exports.folders import Exports
from lake.ingest import counting, intake
from lake.ingest.ingest import Ingest
from lake.store.table_store import TableStore
from schemas.contracts import FOLDERS
from schemas.decode import Decoded, Limits, decode_file
from schemas.leyline import leyline_pb2 as pb
from tests.attacks.mutations import exports
from tests.schemas.decoding import binpb, wal

FOLDER, SEEDS = "kasmina/seed_state", "kasmina.seed_state"
COUNT = 40
MESSAGES = [pb.SeedState(seed_id=f"s{n}", training_run_id="r", timestamp_ns=n + 1).SerializeToString() for n in range(COUNT)]
TEXT = b"".join(
    json.dumps({"seed_id": f"s{n}", "training_run_id": "r", "timestamp_ns": n + 1}).encode() + b"\n" for n in range(COUNT)
)
BAD = b"not json\n\n  \n\xef\xbb\xbf\n"


def parquet() -> bytes:
    sink = io.BytesIO()
    ids = {"seed_id": [f"s{n}" for n in range(COUNT)], "training_run_id": ["r"] * COUNT, "timestamp_ns": range(1, COUNT + 1)}
    pq.write_table(pa.table({name: pa.array(list(values)) for name, values in ids.items()}), sink, row_group_size=10)
    return sink.getvalue()


FILES: dict[str, bytes] = {
    "x.binpb": binpb(MESSAGES),
    "x.wal": wal(MESSAGES),
    "x.ndjson": TEXT + BAD,
    "x.ndjson.gz": gzip.compress(TEXT + BAD),
    "x.ndjson.zst": zstandard.compress(TEXT) + zstandard.compress(BAD),
    "utf16.ndjson": ("\ufeff" + (TEXT + BAD).decode()).encode("utf-16-le"),
    "x.parquet": parquet(),
}


def refresh(root: Path, folder: str, files: dict[str, bytes]) -> Ingest:
    path = root / "exports" / folder
    path.mkdir(parents=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    found = Ingest(root / "home", Exports(root / "exports"), TableStore(root / "home"))
    found.refresh()
    return found


@pytest.mark.parametrize("form", [binpb, wal])
@pytest.mark.parametrize("cut", [0, 1, 2, 5])
def test_frames_end_where_their_lengths_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Callable[[list[bytes]], bytes], cut: int
) -> None:
    """In windows that hold many frames, one or none, and for a last frame whose length or bytes are cut."""
    frames = [form([b"x" * size]) for size in (1, 127, 128, 3, 300, 20_000, 2, 2_100_000, 5, 1)]
    starts = np.cumsum([0, *map(len, frames)])
    path = tmp_path / "frames"
    path.write_bytes(b"".join(frames) + form([b"y" * 300])[: len(form([b""])) + cut])
    for window in (64, 1000, 1 << 21):
        monkeypatch.setattr(counting, "_WINDOW", window)
        ends = counting.frame_ends(path, ".wal" if form is wal else ".binpb", starts)
        assert ends[:-1].tolist() == starts[1:].tolist()
        if cut:
            assert ends[-1] == starts[-1] + len(form([b"y" * 300]))


def without_row(chunk: Decoded, row: int) -> Decoded:
    """A chunk of a decoder that lost a row, and did not count it either."""
    tables, read = dict(chunk.tables), dict(chunk.rows_read)
    rows = tables.get(SEEDS)
    if rows is not None and rows.num_rows > row:
        tables[SEEDS] = pa.concat_tables([rows.slice(0, row), rows.slice(row + 1)])
        read[SEEDS] -= 1
    return Decoded(tables, chunk.rejects, read, chunk.rejected, chunk.unknown_fields, chunk.suspicious, chunk.silent)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("row", [0, 7, COUNT - 1])
def test_a_lost_row_is_found_in_every_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, row: int) -> None:
    def losing(*how: Any, **more: Any) -> Iterator[Decoded]:
        yield from (without_row(chunk, row if name != "x.parquet" else row % 10) for chunk in decode_file(*how, **more))

    sound = refresh(tmp_path / "sound", FOLDER, {name: FILES[name]}).accounting(SEEDS)
    assert sound.balanced and sound.records == sound.rows_read
    monkeypatch.setattr(intake, "decode_file", losing)
    counts = refresh(tmp_path / "losing", FOLDER, {name: FILES[name]}).accounting(SEEDS)
    assert counts.rows_read == counts.kept + counts.duplicates + counts.rejected  # by its own books all is well
    assert counts.lost == (4 if name == "x.parquet" and row < 10 else counts.lost) and counts.lost > 0
    assert not counts.balanced


@pytest.mark.parametrize("name", FILES)
def test_a_reader_that_stops_early_and_says_nothing_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def stopping(*how: Any, **more: Any) -> Iterator[Decoded]:
        yield next(iter(decode_file(*how, **more)))

    monkeypatch.setattr(intake, "decode_file", stopping)
    root = tmp_path / "exports" / FOLDER
    root.mkdir(parents=True)
    (root / name).write_bytes(FILES[name])
    found = Ingest(tmp_path / "home", Exports(tmp_path / "exports"), TableStore(tmp_path / "home"), Limits(chunk_records=10))
    found.refresh()
    counts = found.accounting(SEEDS)
    assert not counts.balanced and counts.lost >= COUNT - 11


def test_a_reader_that_drops_a_cut_stream_and_says_nothing_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*how: Any, **more: Any) -> Iterator[Decoded]:
        yield from (Decoded({}, {}, {}, {}, {}) for _ in decode_file(*how, **more))

    for name in ("x.ndjson.gz", "x.ndjson.zst", "x.parquet", "x.wal"):
        whole = FILES[name]
        monkeypatch.setattr(intake, "decode_file", decode_file)
        assert refresh(tmp_path / name / "sound", FOLDER, {name: whole[:-1]}).accounting(SEEDS).balanced
        monkeypatch.setattr(intake, "decode_file", silent)
        assert not refresh(tmp_path / name / "silent", FOLDER, {name: whole[:-1]}).accounting(SEEDS).balanced


def test_sound_exports_of_every_contract_and_format_balance(tmp_path: Path) -> None:
    for number, export in enumerate(exports()):
        found = refresh(tmp_path / str(number), export.folder, {export.name: export.data})
        for name in FOLDERS[export.folder].tables or ("tolaria.system_state",):
            counts = found.accounting(name)
            assert counts.balanced and counts.records > 0, (export.folder, export.name, name)


def odd() -> Iterator[tuple[str, str, bytes]]:
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    yield FOLDER, "x.ndjson.zst", skippable + zstandard.compress(TEXT) + skippable
    yield FOLDER, "x.ndjson.gz", gzip.compress(TEXT) + b"\0" * 600
    yield FOLDER, "x.ndjson.gz", gzip.compress(TEXT) + b"rest"
    yield FOLDER, "x.ndjson", b"\0" * 70_000 + TEXT + b"\0" * 70_000
    yield FOLDER, "x.wal", wal(MESSAGES[:9]) + b"\0" * 513 + wal(MESSAGES[9:]) + b"\0" * 4096
    yield FOLDER, "x.binpb", binpb(MESSAGES[:9]) + b"\xff" * 40 + binpb(MESSAGES[9:]) + b"\x7f"
    yield FOLDER, "x.ndjson", b""
    yield (
        "simic/registry_snapshot",
        "seed_registry.json",
        '\ufeff{"a": 1, "b": {"c": 2}, "d": "x:y", "a": 3}'.encode("utf-16-le"),
    )
    yield "simic/registry_snapshot", "seed_registry.json", b'{"a": 1, "b": 2, "c'
    yield "simic/registry_snapshot", "seed.json", b'{"a": 1, "b": 2}'
    yield "weatherlight/telemetry", "x.ndjson", b'{"packetId": "p"}\n{"packetId": "q", "metrics": []}\n{}\n'
    yield "urza/blueprint", "x.ndjson", b'{"blueprint_id": "b"}\n{"descriptor": {}}\n{"blueprint_id": "c", "extras": 5}\n'


def test_odd_exports_balance(tmp_path: Path) -> None:
    for number, (folder, name, data) in enumerate(odd()):
        found = refresh(tmp_path / str(number), folder, {name: data})
        for table in FOLDERS[folder].tables:
            assert found.accounting(table).balanced, (number, folder, name, found.accounting(table))


def test_many_small_files_are_judged_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{n}.ndjson": TEXT.replace(b'"r"', f'"r{n}"'.encode()) for n in range(20)}
    assert refresh(tmp_path / "sound", FOLDER, files).accounting(SEEDS).records == 20 * COUNT
    real: Callable[..., Iterator[Decoded]] = intake.decode_together

    def losing(*how: Any, **more: Any) -> Iterator[Decoded]:
        yield from (without_row(chunk, 100) for chunk in real(*how, **more))

    monkeypatch.setattr(intake, "decode_together", losing)
    counts = refresh(tmp_path / "losing", FOLDER, files).accounting(SEEDS)
    assert (counts.lost, counts.balanced) == (1, False)


def test_a_rejects_table_of_an_older_version_counts_one_record_a_row(tmp_path: Path) -> None:
    found = refresh(tmp_path, FOLDER, {"x.ndjson": TEXT + b"not json\n"})
    name = "rejects.kasmina_seed_state"
    old = found.tables.read(name).drop_columns(["records"])
    found.tables.remove(name)
    found.tables.write(name, old, transactions={f"{FOLDER}:ledger": 1})
    assert found.accounting(SEEDS).balanced
    (tmp_path / "exports" / FOLDER / "y.ndjson").write_bytes(b"neither\n" + TEXT)
    found.refresh()
    counts = found.accounting(SEEDS)
    assert (counts.rejected, counts.records, counts.balanced) == (2, COUNT + 1, True)
    assert found.tables.read(name).column("records").to_pylist() in ([None, 1], [1, None])
