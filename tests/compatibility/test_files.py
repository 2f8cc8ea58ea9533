"""Files that go to and fro: our registries and norms in its hands, its log of field reports in ours."""

import json
from pathlib import Path

import pytest

from gnn.norms import published as norms_files
from gnn.registry.peer import MOST, NAMES, export_peer
from gnn.registry.refresh import load, refresh
from schemas.artifacts import REGISTRIES, registry_digest
from schemas.contracts import FOLDERS
from schemas.decode import decode_file
from schemas.leyline import leyline_pb2 as pb
from tests.compatibility.peer import module

SIZES = {"seed": 1024, "blueprint": 1024, "layer_type": 1024, "activation_type": 1024, "optimizer_family": 256,
         "hazard_class": 256, "schedule": 256}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    names = {"layer_type": {"linear", "conv2d", "Ünïcode"}, "activation_type": {"relu"}, "seed": {"seed-1", "seed-2"}}
    refresh(tmp_path / "home" / "registries", names)
    norms_files.publish(tmp_path / "home", norms_files.Norms.default())
    return tmp_path / "home"


def test_its_registries_load_ours_and_hand_out_no_index_twice(home: Path, tmp_path: Path) -> None:
    registry = module("simic.registry")
    export_peer(home / "registries", home / "gnn_norms.json", tmp_path / "peer")
    ours = load(home / "registries")
    for name in NAMES:
        path = tmp_path / "peer" / f"{name}_registry.json"
        before = json.loads(path.read_text())
        found = registry.EmbeddingRegistry(registry.EmbeddingRegistryConfig(path, SIZES[name]))
        assert found.digest() == registry_digest(before)
        assert all(found.get(key) == index for key, index in ours[name].entries.items())
        if name in ("layer_type", "activation_type"):
            assert found.get("unknown") == before["unknown"]
        assert found.snapshot() == before, "what it knows, it does not write again"
        fresh = [found.get(f"new-{number}") for number in range(5)]
        assert len(set(found.snapshot().values())) == len(found.snapshot()) == len(before) + 5
        assert fresh == list(range(len(before) + 1, len(before) + 6))
        assert set(load(home / "registries")[name].entries) == set(ours[name].entries), "ours are not its to write"


def test_a_full_registry_still_takes_its_unknown(tmp_path: Path) -> None:
    registry = module("simic.registry")
    names = {f"seed-{number:04}" for number in range(MOST["seed"])}
    refresh(tmp_path / "registries", {"seed": names})
    norms_files.publish(tmp_path, norms_files.Norms.default())
    export_peer(tmp_path / "registries", tmp_path / "gnn_norms.json", tmp_path / "peer")
    found = registry.EmbeddingRegistry(
        registry.EmbeddingRegistryConfig(tmp_path / "peer" / "seed_registry.json", SIZES["seed"])
    )
    assert len(found.snapshot()) == MOST["seed"] <= REGISTRIES["seed"].last
    assert 1 <= found.get("one more") < SIZES["seed"]
    assert len(set(found.snapshot().values())) == len(found.snapshot())


def test_its_normalizer_starts_from_our_norms(home: Path, tmp_path: Path) -> None:
    builder = module("tamiyo.graph_builder")
    export_peer(home / "registries", home / "gnn_norms.json", tmp_path / "peer")
    ours = json.loads((tmp_path / "peer" / "gnn_norms.json").read_text())
    found = builder._FeatureNormalizer(tmp_path / "peer" / "gnn_norms.json")
    for name in ("loss", "gradient_norm", "samples_per_s", "hook_latency_ms"):
        assert found._stats[name] == {"mean": ours[name]["mean"], "var": ours[name]["var"]}
        assert abs(found.normalize(name, ours[name]["mean"])) < 1e-9


def test_its_log_of_field_reports_is_an_export(tmp_path: Path) -> None:
    persistence, theirs = module("tamiyo.persistence"), module("leyline").leyline_pb2
    folder = tmp_path / "tamiyo" / "field_report"
    folder.mkdir(parents=True)
    store = persistence.FieldReportStore(persistence.FieldReportStoreConfig(path=folder / "field_reports.wal"))
    for number in range(7):
        report = theirs.FieldReport(report_id=f"r{number}", training_run_id="run", seed_id="s", blueprint_id="b", outcome=2)
        report.issued_at.GetCurrentTime()
        report.metrics["loss_delta"] = 0.5
        store.append(report)
    rows = []
    for decoded in decode_file(
        folder / "field_reports.wal", FOLDERS["tamiyo/field_report"], file="tamiyo/field_report/x.wal", digest="d" * 64
    ):
        assert not decoded.rejects
        rows += decoded.tables["tamiyo.field_report"].to_pylist()
    assert [row["report_id"] for row in rows] == [f"r{number}" for number in range(7)]
    assert {row["outcome"] for row in rows} == {"NEUTRAL"}


def test_messages_have_the_same_numbers_in_both_protobuf_modules() -> None:
    theirs = module("leyline").leyline_pb2
    compared, faults = 0, []
    for name, message in theirs.DESCRIPTOR.message_types_by_name.items():
        own = pb.DESCRIPTOR.message_types_by_name.get(name)
        if own is None:
            continue
        compared += 1
        for field in message.fields:
            found = own.fields_by_number.get(field.number)
            if found is None or (found.name, found.type, found.is_repeated) != (field.name, field.type, field.is_repeated):
                faults.append(f"{name}.{field.name} = {field.number}: {found and (found.name, found.type)}")
    for name, enum in theirs.DESCRIPTOR.enum_types_by_name.items():
        own_enum = pb.DESCRIPTOR.enum_types_by_name.get(name)
        if own_enum is not None:
            compared += 1
            own_values = {value.name: value.number for value in own_enum.values}
            faults += [f"{name}.{v.name} = {v.number}" for v in enum.values if own_values.get(v.name) != v.number]
    assert faults == []
    assert compared > 20
