"""Many small exports decoded together: the rows, rejects and counts of each decoded alone, whatever is wrong with some."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.contracts import FOLDERS, TABLES
from schemas.decode import Decoded, Limits, decode_file
from schemas.decode.together import Source, decode_together
from schemas.leyline import leyline_pb2 as pb

FOLDER = FOLDERS["tolaria/system_state"]


def _packet(number: int, run: str = "run-0") -> bytes:
    packet = pb.SystemStatePacket(packet_id=f"p-{number}", training_run_id=run, timestamp_ns=1 + number, global_step=number)
    packet.training_metrics["loss"] = number
    packet.seed_states.add(seed_id=f"s-{number % 2}", stage=2, alpha=0.5)
    return bytes(packet.SerializeToString())


def _framed(records: list[bytes]) -> bytes:
    return b"".join(len(record).to_bytes(4, "little") + record for record in records)


def _sources(root: Path, files: list[bytes], extension: str = ".wal") -> list[Source]:
    found = []
    for number, content in enumerate(files):
        path = root / f"f{number}{extension}"
        path.write_bytes(content)
        found.append(Source(path, f"{FOLDER.path}/{path.name}", f"{number:064d}"))
    return found


def _sum(chunks: list[Decoded]) -> tuple[dict[str, list[object]], dict[str, list[object]], list[dict[str, int]]]:
    """Rows by table and rejects by table in a fixed order, and the counts."""
    tables: dict[str, list[object]] = {}
    rejects: dict[str, list[object]] = {}
    counts: list[dict[str, int]] = [{}, {}, {}]
    for chunk in chunks:
        for found, kept in ((chunk.tables, tables), (chunk.rejects, rejects)):
            for name, rows in found.items():
                assert name not in TABLES or rows.schema.equals(TABLES[name].arrow_schema)
                kept.setdefault(name, []).extend(rows.to_pylist())
        for sums, more in zip(counts, (chunk.rows_read, chunk.rejected, chunk.unknown_fields), strict=True):
            for name, count in more.items():
                sums[name] = sums.get(name, 0) + count
    return ({n: sorted(r, key=str) for n, r in tables.items()}, {n: sorted(r, key=str) for n, r in rejects.items()}, counts)


def _alone(sources: list[Source], limits: Limits) -> list[Decoded]:
    return [c for s in sources for c in decode_file(s.path, FOLDER, file=s.file, digest=s.digest, limits=limits)]


_GOOD = st.integers(0, 50).map(_packet)
_BAD = st.sampled_from([b"\xff\xff", _packet(1, run=""), b"\x0a", _packet(3) + b"\xc2\x3e\x01x"])
_FILE = st.lists(st.one_of(_GOOD, _GOOD, _GOOD, _BAD), max_size=4).map(_framed)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.lists(st.one_of(_FILE, _FILE, st.binary(max_size=20)), max_size=8), records=st.integers(1, 10))
def test_together_is_as_each_alone(tmp_path: Path, files: list[bytes], records: int) -> None:
    limits = Limits(chunk_records=records)
    sources = _sources(tmp_path, files)
    assert _sum(list(decode_together(sources, FOLDER, limits))) == _sum(_alone(sources, limits))


@pytest.mark.parametrize(
    "odd", [b"", b"{", b'{"packetId": "x"}', b'{"timestamp_ns": "NaN"}', b'{"colour": 1, "training_run_id": "r"}']
)
def test_lines_of_many_files_are_as_each_alone(tmp_path: Path, odd: bytes) -> None:
    line = b'{"packet_id": "p%d", "training_run_id": "r", "timestamp_ns": "%d", "training_loss": 0.5, "hue": 3}\n'
    files = [line % (number, 1 + number) + (odd + b"\n" if number == 2 else b"") for number in range(5)]
    sources = _sources(tmp_path, files, ".ndjson")
    together = list(decode_together(sources, FOLDER))
    assert _sum(together) == _sum(_alone(sources, Limits()))
    assert len(together) < len(files)


def test_clean_files_are_decoded_at_once_and_rows_say_where_they_came_from(tmp_path: Path) -> None:
    sources = _sources(tmp_path, [_framed([_packet(n), _packet(n + 100)]) for n in range(20)])
    (chunk,) = decode_together(sources, FOLDER)
    rows: pa.Table = chunk.tables["tolaria.system_state"]
    found = {(r["export_digest"], r["position"]): r["packet_id"] for r in rows.to_pylist()}
    second = 4 + len(_packet(3))
    assert (found[sources[3].digest, 0], found[sources[3].digest, second]) == ("p-3", "p-103")
