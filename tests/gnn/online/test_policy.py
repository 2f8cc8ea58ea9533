"""TamiyoPolicy: decisions, masks, annotations, telemetry, no I/O, compile fallback."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gnn.bundle.read import Bundle
from gnn.online import ServingConfig, TamiyoPolicy
from gnn.online.choice import KernelMasks, choose
from gnn.online.compiling import compile_status
from gnn.online.snapshot import Snapshot, SnapshotCache
from schemas.errors import BundleRejected, ContractError, ServingError
from schemas.features import COVERAGE_KEYS, FAMILIES
from schemas.kernels import KERNELS
from schemas.leyline import leyline_pb2 as pb
from tests.gnn.online.conftest import START, metadata_tables, packet

EAGER = ServingConfig(min_value=-10.0, max_harm=1.0)


def policy_of(bundle: Bundle, config: ServingConfig = EAGER, **more: Any) -> TamiyoPolicy:
    return TamiyoPolicy(bundle, config, clock=lambda: START + 5_000_000_000, **more)


def test_a_decision_names_a_dormant_seed_and_a_kernel_that_fits_its_site(bundle: Bundle, snapshot: Snapshot) -> None:
    decision = policy_of(bundle).decide(packet(), snapshot)
    command = decision.command
    assert command.command_type == pb.COMMAND_SEED
    assert command.seed_operation.operation == pb.SEED_OP_GERMINATE
    fitting = {"seed-1": KERNELS[:3], "seed-2": KERNELS[3:6]}
    assert command.seed_operation.blueprint_id in fitting[command.target_seed_id]
    assert decision.choice.value_low < decision.choice.value < decision.choice.value_high
    assert sum(decision.choice.risk) == pytest.approx(1.0)
    assert command.annotations["blending_method"] in ("linear", "cosine", "warmup_hold", "sigmoid")


def test_every_annotation_of_the_design_is_there(bundle: Bundle, snapshot: Snapshot) -> None:
    found = dict(policy_of(bundle).decide(packet(seeds=0), snapshot).command.annotations)
    assert found["feature_manifest"] == bundle.manifest_digest
    assert found["policy_version"] == "tamiyo_gnn_v1"
    assert found["metadata_age_ms"] == "5000"
    sheet = ("LOW", "STANDARD", "CPU", "HEURISTIC", "0.250000")
    names = ("bsds_hazard_band", "bsds_handling_class", "bsds_resource_profile", "bsds_provenance", "bsds_risk")
    assert tuple(found[name] for name in names) == sheet
    keys, families = json.loads(found["coverage_map"]), json.loads(found["coverage_types"])
    assert set(keys) <= set(COVERAGE_KEYS)
    assert set(families) <= set(FAMILIES)
    assert keys["layer.layer_type"] == 1.0
    counted = [key for key in COVERAGE_KEYS if not key.startswith(("seed.", "edges.seed_", "edges.context_seed."))]
    assert set(keys) < set(counted)
    assert float(found["feature_coverage"]) == pytest.approx(sum(keys.values()) / len(counted), abs=1e-5)


@pytest.mark.parametrize(
    ("change", "config", "reason"),
    [
        ({"seeds": 0}, EAGER, "no_seed_candidates"),
        ({"stage": pb.SEED_STAGE_TRAINING}, EAGER, "no_kernel_left"),
        ({}, ServingConfig(min_value=1e6, max_harm=1.0), "no_op_is_better"),
        ({}, ServingConfig(min_value=-10.0, max_harm=0.0), "risk_too_high"),
    ],
)
def test_a_no_op_says_why(bundle: Bundle, snapshot: Snapshot, change: dict, config: ServingConfig, reason: str) -> None:
    command = policy_of(bundle, config).decide(packet(**change), snapshot).command
    assert command.command_type == pb.COMMAND_PAUSE
    assert command.annotations["reason"] == reason
    assert not command.HasField("seed_operation")


def test_quarantined_kernels_are_masked(bundle: Bundle) -> None:
    held = {f"kernel_{name}": {"handling_class": "QUARANTINE"} for name in ("identity", "scale", "shift", "affine", "linear")}
    snapshot = Snapshot.of(bundle, metadata_tables(**held), START)
    command = policy_of(bundle).decide(packet(), snapshot).command
    assert command.seed_operation.blueprint_id == KERNELS[5]
    assert command.annotations["bsds_handling_class"] == "missing"
    later = Snapshot.of(bundle, metadata_tables(**{k: v | {"issued_at_ns": START + 9**9} for k, v in held.items()}), START)
    assert later.quarantined(KERNELS, START) == [False] * 32


def test_masks_follow_measurement_site_and_stage(bundle: Bundle, snapshot: Snapshot) -> None:
    policy = policy_of(bundle)
    built = policy._build(packet(), snapshot)
    mask = KernelMasks(bundle).of(built.batch, snapshot, START)
    assert mask.shape == (2, 32)
    assert {frozenset(row.nonzero().flatten().tolist()) for row in mask} == {frozenset({0, 1, 2}), frozenset({3, 4, 5})}


def test_the_choice_never_takes_a_masked_pair(bundle: Bundle, snapshot: Snapshot) -> None:
    outputs = policy_of(bundle).decide(packet(), snapshot).outputs
    for column in range(32):
        mask = torch.zeros(2, 32, dtype=torch.bool)
        mask[1, column] = True
        found = choose(outputs, mask, bundle.manifest.calibration, EAGER)
        assert (found.seed, found.kernel) == (1, KERNELS[column]) or found.reason != "policy"


def test_the_same_packets_give_the_same_outputs_also_after_a_restore(bundle: Bundle, snapshot: Snapshot) -> None:
    first, second, third = policy_of(bundle), policy_of(bundle), policy_of(bundle)
    for step in range(3):
        a, b = first.decide(packet(step), snapshot), second.decide(packet(step).SerializeToString(), snapshot)
        assert all(torch.equal(x, y) for x, y in zip(a.outputs.tensors().values(), b.outputs.tensors().values(), strict=True))
    third.restore(second.save())
    a, b = first.decide(packet(3), snapshot), third.decide(packet(3), snapshot)
    assert torch.equal(a.outputs.seed_value, b.outputs.seed_value)
    fresh = policy_of(bundle).decide(packet(3), snapshot)
    assert not torch.equal(a.outputs.seed_value, fresh.outputs.seed_value)


def test_a_decision_does_no_file_or_network_io(bundle: Bundle, snapshot: Snapshot) -> None:
    policy = policy_of(bundle)
    policy.decide(packet(0), snapshot)
    seen: list[str] = []
    active = True

    def hook(event: str, args: object) -> None:
        if active and event.split(".")[0] in ("open", "socket", "subprocess", "os", "shutil"):
            seen.append(f"{event} {args}")

    sys.addaudithook(hook)
    try:
        policy.decide(packet(1), snapshot)
    finally:
        active = False
    assert seen == []


def test_telemetry_is_handed_out_once_and_bounded(bundle: Bundle, snapshot: Snapshot) -> None:
    policy = policy_of(bundle, EAGER.model_copy(update={"telemetry_limit": 3}))
    for step in range(5):
        policy.decide(packet(step), snapshot)
    found = policy.drain_telemetry()
    assert policy.drain_telemetry() == []
    assert len(found) == 3
    assert len({p.packet_id for p in found}) == 3
    names = [m.name for m in found[-1].metrics]
    assert {"tamiyo.gnn.feature_coverage", "tamiyo.gnn.feature_coverage.node.layer", "tamiyo.gnn.bsds_missing",
            "tamiyo.gnn.inference_latency_ms", "tamiyo.gnn.compile_status"} <= set(names)  # fmt: skip
    dropped = [m.value for p in found for m in p.metrics if m.name == "tamiyo.telemetry.dropped_total"]
    assert dropped == [2.0]


@pytest.mark.parametrize(("warn", "critical", "level"), [(0.0, 0.0, None), (1.0, 0.1, "WARNING"), (1.0, 1.0, "CRITICAL")])
def test_low_coverage_is_an_event(bundle: Bundle, snapshot: Snapshot, warn: float, critical: float, level: str | None) -> None:
    policy = policy_of(bundle, EAGER.model_copy(update={"warn_coverage": warn, "critical_coverage": critical}))
    policy.decide(packet(), snapshot)
    (sent,) = policy.drain_telemetry()
    events = [(e.description, pb.TelemetryLevel.Name(e.level)) for e in sent.events]
    assert events == ([("degraded_inputs", f"TELEMETRY_LEVEL_{level}")] if level else [])


def test_a_packet_with_nothing_but_a_loss_is_degraded(bundle: Bundle, snapshot: Snapshot) -> None:
    policy = policy_of(bundle)
    bare = pb.SystemStatePacket(
        version=1, packet_id="p", training_run_id="r", timestamp_ns=START, training_metrics={"loss": 0.5}
    )
    policy.decide(bare, snapshot)
    (sent,) = policy.drain_telemetry()
    assert [e.description for e in sent.events] == ["degraded_inputs"]
    assert sent.level == sent.events[0].level == pb.TELEMETRY_LEVEL_CRITICAL
    assert 0.0 < float(sent.events[0].attributes["mandatory_coverage"]) < 0.1


def test_blueprints_without_a_sheet_are_counted(bundle: Bundle) -> None:
    tables = metadata_tables()
    tables["urabrask.bsds"] = tables["urabrask.bsds"].slice(0, 0)
    policy = policy_of(bundle)
    decision = policy.decide(packet(), Snapshot.of(bundle, tables, START))
    assert (decision.coverage.bsds_missing, decision.coverage.bsds_partial) == (1, 0)


def test_a_bad_packet_is_refused_and_the_policy_goes_on(bundle: Bundle, snapshot: Snapshot) -> None:
    policy = policy_of(bundle)
    with pytest.raises(ContractError):
        policy.decide(b"\xff\xff", snapshot)
    marker = pb.SystemStatePacket(packet_id="p", training_run_id="r", timestamp_ns=START, source_subsystem="tolaria")
    marker.validation_accuracy = 1.0
    with pytest.raises(ServingError, match="completion marker"):
        policy.decide(marker, snapshot)
    assert policy.decide(packet(), snapshot).command.command_id


def test_a_snapshot_of_another_build_is_refused(bundle: Bundle, snapshot: Snapshot) -> None:
    other = Snapshot(snapshot.metadata, "f" * 64, START)
    with pytest.raises(ServingError, match="expected a snapshot of build"):
        policy_of(bundle).decide(packet(), other)


def test_load_refuses_a_damaged_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleRejected):
        TamiyoPolicy.load(tmp_path)


def test_a_compile_failure_is_recorded_once_and_serving_goes_on_eager(
    bundle: Bundle, snapshot: Snapshot, tmp_path: Path
) -> None:
    config = EAGER.model_copy(update={"compile": True, "compile_backend": "no-such-backend"})
    first, second = (policy_of(bundle, config, home=tmp_path) for _ in range(2))
    entry = compile_status(tmp_path)[bundle.build_id]
    assert entry["status"] == "EAGER_FALLBACK"
    assert "no-such-backend" in entry["error"]
    events = [[e.description for p in policy.drain_telemetry() for e in p.events] for policy in (first, second)]
    assert events == [["tamiyo.gnn.compile_failed"], []]
    eager = policy_of(bundle).decide(packet(), snapshot)
    assert torch.equal(second.decide(packet(), snapshot).outputs.value, eager.outputs.value)


def test_what_compiles_is_recorded_and_answers_the_same(
    bundle: Bundle, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a real compilation of the whole network takes minutes on a CPU
    monkeypatch.setattr(torch, "compile", lambda network, **options: network)
    policy = policy_of(bundle, EAGER.model_copy(update={"compile": True}), home=tmp_path)
    assert compile_status(tmp_path)[bundle.build_id]["status"] == policy.compiling.status == "COMPILED"
    found, eager = policy.decide(packet(), snapshot), policy_of(bundle).decide(packet(), snapshot)
    torch.testing.assert_close(found.outputs.seed_value, eager.outputs.seed_value)


def test_bfloat16_answers_nearly_the_same(bundle: Bundle, snapshot: Snapshot) -> None:
    half = policy_of(bundle, EAGER.model_copy(update={"precision": "bfloat16"})).decide(packet(), snapshot).outputs
    full = policy_of(bundle).decide(packet(), snapshot).outputs
    assert half.seed_value.dtype == torch.float32
    torch.testing.assert_close(half.seed_value, full.seed_value, atol=0.05, rtol=0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with CUDA serves on it")
def test_cuda_that_is_not_there_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ServingError, match="expected CUDA"):
        policy_of(bundle, ServingConfig(device="cuda"))
    assert policy_of(bundle, ServingConfig(device="auto")).device.type == "cpu"


def test_the_cache_refreshes_behind_the_decisions_and_survives_a_failed_read(bundle: Bundle) -> None:
    calls: list[int] = []

    def read() -> dict:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("the disk is away")
        return metadata_tables()

    cache = SnapshotCache(bundle, read, every_s=0.01)
    try:
        first = cache.current
        for _ in range(500):
            if cache.current is not first:
                break
            cache._stop.wait(0.01)
        assert cache.current is not first
        assert len(calls) >= 3
    finally:
        cache.close()
