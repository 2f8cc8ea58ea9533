"""Copies of recorded runs are runs of their own, with the values of the runs that they were copied from."""

from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.copies import KEPT, copy, make
from schemas.contracts import FOLDERS
from schemas.decode import decode_file

STATES, LAYERS = "tolaria.system_state", "tolaria.layer_telemetry"


def decoded(place: Path, folder: str) -> dict[str, pa.Table]:
    """The rows of all files of a folder; a reject is an error."""
    found: dict[str, list[pa.Table]] = {}
    for path in sorted((place / folder).iterdir()):
        for chunk in decode_file(path, FOLDERS[folder], file=path.name, digest=path.name):
            assert not any(rows.num_rows for rows in chunk.rejects.values())
            for name, rows in chunk.tables.items():
                found.setdefault(name, []).append(rows)
    return {name: pa.concat_tables(parts) for name, parts in found.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    place = tmp_path_factory.mktemp("copies")
    assert make(place, [sample], 510, 1) == 2 * 509
    return place


def test_each_copy_is_a_run_of_its_own_on_its_own_day(made: Path) -> None:
    states = decoded(made, "tolaria/system_state")[STATES]
    assert states.num_rows == len(set(states.column("training_run_id").to_pylist())) == 2 * 509
    assert len(set(states.column("packet_id").to_pylist())) == states.num_rows
    first, second = (states.slice(start, 509) for start in (0, 509))
    apart = zip(first.column("timestamp_ns").to_pylist(), second.column("timestamp_ns").to_pylist(), strict=True)
    assert {after - before for before, after in apart} == {86_400 * 10**9}
    for name in ("training_loss", "blueprint_id", "global_step"):
        assert first.column(name).equals(second.column(name)), name


def test_a_copy_keeps_its_hosts_and_its_layers(made: Path) -> None:
    layers = decoded(made, "tolaria/system_state")[LAYERS]
    half = layers.num_rows // 2
    assert layers.slice(0, half).column("layer_id").equals(layers.slice(half).column("layer_id"))
    hosts = set(decoded(made, "urza/blueprint")["urza.blueprint"].column("blueprint_id").to_pylist())
    assert set(decoded(made, "tolaria/system_state")[STATES].column("blueprint_id").to_pylist()) <= hosts


def test_every_thinned_folder_names_the_copies(made: Path) -> None:
    for folder in KEPT:
        decoded(made, folder)
    reports = decoded(made, "tamiyo/field_report")["tamiyo.field_report"]
    assert set(reports.column("training_run_id").to_pylist()) <= set(
        decoded(made, "tolaria/system_state")[STATES].column("training_run_id").to_pylist()
    )


def test_a_name_keeps_its_length_and_too_many_copies_are_refused() -> None:
    line = b'{"training_run_id":"run-s7-0012","timestamp_ns":"5","at":"2026-11-27T00:00:00Z"}'
    assert copy(line, 3) == b'{"training_run_id":"run-ad-0012","timestamp_ns":"259200000000005","at":"2026-11-30T00:00:00Z"}'
    with pytest.raises(ValueError, match="fewer than 676 copies"):
        copy(line, 676)
