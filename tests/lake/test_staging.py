"""Staged rows are the same in memory, on disk and partly in both."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lake.ingest import staging as staging_module
from lake.ingest.staging import STAGING, Memory, Staging, key_hashes
from schemas.contracts import TABLES

NAME = "tolaria.system_state"
SCHEMA = TABLES[NAME].arrow_schema


def _rows(first: int, count: int) -> pa.Table:
    numbers = range(first, first + count)
    filled = {
        "training_run_id": pa.array([f"run-{number // 40}" for number in numbers], pa.string()),
        "packet_id": pa.array([f"packet-{number}" for number in numbers], pa.string()),
        "timestamp_ns": pa.array(numbers, pa.int64()),
        "is_completion": pa.repeat(pa.scalar(False), count),
    }
    return pa.Table.from_arrays([filled.get(f.name, pa.nulls(count, f.type)) for f in SCHEMA], schema=SCHEMA)


@dataclass(frozen=True)
class _Runs:
    runs: frozenset[str]

    def holds(self, batch: pa.RecordBatch) -> pa.Array:
        return pc.is_in(batch.column("training_run_id"), pa.array(sorted(self.runs), pa.string()))


@pytest.mark.parametrize("room", [0, 6_000, 1 << 30], ids=["on disk", "partly in memory", "in memory"])
def test_rows_come_back_in_order_wherever_they_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr(staging_module, "MEMORY_BYTES", room)
    expected = pa.concat_tables([_rows(first, 30) for first in range(0, 300, 30)])
    with Staging(tmp_path, {NAME: SCHEMA}) as found:
        for first in range(0, 300, 30):
            found.add(NAME, _rows(first, 30))
        staged = found.take(NAME)
        assert list((tmp_path / STAGING).rglob("*.arrow")) == [] or room < 1 << 30
        assert staged.reader().read_all().equals(expected)
        assert staged.rows == 300
        assert staged.hashes().equals(key_hashes(expected.combine_chunks(), TABLES[NAME].key))
        some = _Runs(frozenset({"run-1", "run-7"}))
        assert staged.select(some).equals(expected.filter(some.holds(expected.combine_chunks())))
    assert not (tmp_path / STAGING).exists()


def test_what_goes_wrong_in_its_thread_is_raised(tmp_path: Path) -> None:
    with Staging(tmp_path, {NAME: SCHEMA}) as found:
        found.add(NAME, pa.table({"unheard_of": [1]}))
        with pytest.raises(ValueError, match="unheard_of"):
            found.take(NAME)


def test_a_buffer_that_several_batches_share_counts_once() -> None:
    shared = pa.array(range(1_000), pa.int64())
    first = pa.record_batch({"a": shared})
    second = pa.record_batch({"b": shared, "a": shared})
    memory = Memory(first.nbytes + 100)
    assert memory.take(first)
    assert memory.take(second)
    assert not memory.take(pa.record_batch({"a": pa.array(range(1_000), pa.int64())}))
