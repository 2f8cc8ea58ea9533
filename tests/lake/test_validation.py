"""What breaks its table's declaration is refused before the commit, by the names of its rows; the table stays as it was."""

from pathlib import Path

import pyarrow as pa
import pytest

from lake.accounting import Tally
from lake.exports.folders import Exports
from lake.ingest.commit import Commit, commit_rows
from lake.ingest.ingest import Ingest
from lake.ingest.staging import Staging
from lake.store.table_store import TableStore
from lake.store.validation import declaration
from schemas.contracts import TABLES
from schemas.derived.tables import DECLARED, DERIVED
from schemas.errors import ContractError, StorageError
from schemas.features import COVERAGE_KEYS
from schemas.table_declaration import DeclaredTable
from tests.declared import mutations, sound_rows, wrong_columns
from tests.refused import refused_exports

BY_KEY = DECLARED["coverage.by_key"]
STATES = "tolaria.system_state"


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    return TableStore(tmp_path, DERIVED)


@pytest.mark.parametrize("table", DECLARED.values(), ids=lambda table: table.name)
def test_nothing_of_a_write_that_breaks_a_rule_is_committed(store: TableStore, table: DeclaredTable) -> None:
    sound = sound_rows(table)
    store.write(table.name, sound)
    found = [*mutations(table), *wrong_columns(table)]
    assert found
    for mutation in found:
        with pytest.raises(StorageError, match=rf"table {table.name}: .*None of these rows was committed") as refused:
            store.write(table.name, mutation.rows)
        assert mutation.rule in str(refused.value), mutation.what
    assert store.version(table.name) == 0
    assert sorted(map(str, store.read(table.name).to_pylist())) == sorted(map(str, sound.to_pylist()))


def test_the_message_names_table_rule_number_and_first_rows(store: TableStore) -> None:
    rows = sound_rows(BY_KEY).to_pylist()
    for number, row in enumerate(rows):
        row["ratio"] = 1.5 + number
    many = [row | {"training_run_id": f"r{n}"} for n in range(2) for row in rows]
    with pytest.raises(StorageError) as refused:
        store.write(BY_KEY.name, pa.Table.from_pylist(many, BY_KEY.arrow_schema))
    one, two, three = COVERAGE_KEYS[:3]
    assert str(refused.value) == (
        "table coverage.by_key: ratio_in_range: expected ratio within 0..1, found 6 rows: "
        f"ratio=1.5 (training_run_id='r0', key='{one}'); ratio=2.5 (training_run_id='r0', key='{two}'); "
        f"ratio=3.5 (training_run_id='r0', key='{three}') and 3 more. "
        "None of these rows was committed, the table is as it was; what made them is at fault: correct it, then run again"
    )
    assert not store.exists(BY_KEY.name)


def test_rows_of_a_run_that_is_not_replaced_are_refused(store: TableStore) -> None:
    rows = sound_rows(BY_KEY)
    runs = rows.column("training_run_id").to_pylist()
    store.write(BY_KEY.name, rows, runs=runs)
    with pytest.raises(StorageError, match=f"replaced runs: .* found 1 rows of {runs[2]}"):
        store.write(BY_KEY.name, rows, runs=runs[:2])
    store.write(BY_KEY.name, rows.slice(0, 0), runs=runs[:2])
    assert store.read(BY_KEY.name).column("training_run_id").to_pylist() == runs[2:]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_stream_is_refused_whole_wherever_it_breaks_a_rule(store: TableStore, place: int) -> None:
    store.write(BY_KEY.name, sound_rows(BY_KEY))
    parts = sound_rows(BY_KEY).to_pylist()
    parts[place]["measured"] = -1
    batches = [pa.RecordBatch.from_pylist([row], BY_KEY.arrow_schema) for row in parts]
    with pytest.raises(StorageError, match=r"measured_in_range: .* found 1 rows: measured=-1 \(training_run_id="):
        store.write(BY_KEY.name, pa.RecordBatchReader.from_batches(BY_KEY.arrow_schema, batches), append=True)
    assert store.version(BY_KEY.name) == 0


def test_copies_of_a_key_in_different_batches_of_a_stream_are_refused(store: TableStore) -> None:
    (batch,) = sound_rows(BY_KEY).to_batches()
    with pytest.raises(StorageError, match=r"unique_training_run_id_key: .* found 2 rows"):
        store.write(BY_KEY.name, pa.RecordBatchReader.from_batches(BY_KEY.arrow_schema, [batch, batch.slice(1, 1)]))
    assert not store.exists(BY_KEY.name)
    store.write(BY_KEY.name, pa.RecordBatchReader.from_batches(BY_KEY.arrow_schema, [batch.slice(0, 1), batch.slice(1)]))
    assert store.count(BY_KEY.name) == batch.num_rows


def test_a_table_that_nobody_declared_is_written_as_it_is(store: TableStore) -> None:
    store.write("features.numbers", pa.table({"value": [1]}))
    assert store.count("features.numbers") == 1


@pytest.mark.parametrize("name", [*TABLES, "rejects.tolaria_system_state"])
def test_staged_rows_that_break_a_rule_are_refused(tmp_path: Path, name: str) -> None:
    table = declaration(name)
    assert table is not None
    for mutation in mutations(table):
        with Staging(tmp_path, {name: table.arrow_schema}) as staging:
            staging.add(name, mutation.rows)
            if mutation.rule.startswith("unique"):  # copies of a key are merged
                staging.settle()
                continue
            with pytest.raises(ContractError, match=rf"table {name}: .*{mutation.rule}"):
                staging.settle()


def test_rows_that_were_merged_wrongly_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, tables = TABLES[STATES], TableStore(tmp_path)
    rows = sound_rows(table.declared)
    twice = pa.concat_tables([rows, rows])
    monkeypatch.setattr("lake.ingest.commit.merge", lambda table, old, new: type("Merged", (), {"rows": twice}))
    with Staging(tmp_path, {STATES: table.arrow_schema}) as staging:
        staging.add(STATES, twice)
        with pytest.raises(StorageError, match=rf"table {STATES}: unique_training_run_id_packet_id_timestamp_ns: .* 6 rows"):
            commit_rows(tables, staging, Commit(STATES, {}, Tally()))
    assert tables.version(STATES) is None


def test_an_export_of_which_the_decoder_makes_bad_rows_is_rejected_and_its_neighbour_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused_exports(tmp_path / "exports", monkeypatch)
    home = tmp_path / "home"
    Ingest(home, Exports(tmp_path / "exports"), TableStore(home)).refresh()
    tables = TableStore(home)
    assert tables.read(STATES).column("training_run_id").to_pylist() == ["good"]
    (reject,) = tables.read("rejects.tolaria_system_state").to_pylist()
    assert reject["file"].endswith("bad.ndjson") and "packet_id_present: expected a value of packet_id" in reject["message"]
