"""TamiyoPolicy: decisions, masks, annotations, telemetry, no I/O, compile fallback."""

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from gnn.bundle import preflight
from gnn.bundle.files import read_members
from gnn.bundle.golden import write_golden
from gnn.bundle.layout import blank_batch
from gnn.bundle.members import GOLDEN, WEIGHTS
from gnn.bundle.read import Bundle, read_bundle
from gnn.coverage.signals import CoverageFigures
from gnn.graph.scale import scale
from gnn.online import ServingConfig, TamiyoPolicy
from gnn.online.compiling import companion, compile_status
from gnn.online.constraints import Route
from gnn.online.coverage import GraphCoverage
from gnn.online.policy import RECENT
from gnn.online.snapshot import Snapshot, SnapshotCache
from schemas.configuration import BLENDING_METHODS
from schemas.decode import decode_packets
from schemas.errors import BundleRejected, ContractError, FeatureError, ServingError
from schemas.features import COVERAGE_KEYS, FAMILIES
from schemas.kernels import KERNELS
from schemas.leyline import leyline_pb2 as pb
from tests.attacks.bundles import with_member, write_members
from tests.gnn.bundle.conftest import Home, published  # noqa: F401 - a fixture
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
    assert (found["reason"], found["priority"]) == ("no_seed_candidates", "NORMAL")
    families = json.loads(found["coverage_types"])
    assert set(families) <= set(FAMILIES)


def test_the_coverage_map_holds_the_lowest_keys_in_a_kilobyte(bundle: Bundle, snapshot: Snapshot) -> None:
    decision = policy_of(bundle).decide(packet(), snapshot)
    found, whole = decision.command.annotations, decision.coverage.figures.keys
    kept = json.loads(found["coverage_map"])
    assert len(found["coverage_map"].encode()) <= 1024 < len(found["coverage_map"].encode()) + 60
    assert found["coverage_map_truncated"] == "true"
    assert set(kept) < set(whole) <= set(COVERAGE_KEYS)
    assert max(kept.values()) <= min(ratio for key, ratio in whole.items() if key not in kept)
    assert all(kept[key] == round(whole[key], 6) for key in kept)
    few = GraphCoverage(CoverageFigures({"layer.loss": 0.5}, {}, 0.5, 0.5), 0, 0).annotations()
    assert few["coverage_map"] == '{"layer.loss":0.5}'
    assert "coverage_map_truncated" not in few


def test_a_no_op_looks_like_a_pause_and_is_not_sent(bundle: Bundle, snapshot: Snapshot) -> None:
    decision = policy_of(bundle).decide(packet(seeds=0), snapshot)
    assert decision.command.command_type == pb.COMMAND_PAUSE
    assert decision.choice.route is Route.NO_OP
    assert not decision.publishes
    assert not decision.command.HasField("seed_operation")


def test_a_graft_carries_its_parameters(bundle: Bundle, snapshot: Snapshot) -> None:
    command = policy_of(bundle).decide(packet(), snapshot).command
    parameters = dict(command.seed_operation.parameters)
    method = BLENDING_METHODS.index(command.annotations["blending_method"])
    whole = {"blending_schedule_start": 0.0, "blending_schedule_end": 1.0}
    assert parameters == {"alpha": 0.0, "blending_method_index": float(method)} | whole


def test_outputs_that_nothing_trained_are_not_offered(bundle: Bundle, snapshot: Snapshot) -> None:
    outputs = policy_of(bundle).decide(packet(), snapshot).outputs
    untrained = {name for name, head in bundle.manifest.heads.items() if not head.trained}
    assert {"params", "schedule", "breaker", "telemetry"} <= untrained
    assert {"policy_params", "schedule_params", "breaker_logits", "telemetry_embedding", "blueprint_scores"} <= set(
        outputs.missing
    )
    assert {"value", "risk_logits", "policy_logits", "seed_value", "compile_embedding"} <= set(outputs.tensors())
    with pytest.raises(AttributeError, match=f"found: {bundle.manifest.heads['params'].reason}"):
        _ = outputs.policy_params


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
    of_gnn = ("feature_coverage", "feature_coverage.node.layer", "feature_coverage.node.global", "bsds_missing", "bsds_partial")
    of_gnn += tuple(
        f"inference.{name}" for name in ("latency_ms", "compile_enabled", "compile_fallback_total", "compile_warm_ms")
    )
    of_bsds = ("hazard_critical_signal", "hazard_high_signal", "elevated_risk_flag")
    expected = {f"tamiyo.gnn.{name}" for name in of_gnn} | {f"tamiyo.bsds.{name}" for name in of_bsds}
    assert expected | {"tamiyo.blueprint.risk"} <= set(names)
    assert "tamiyo.gnn.feature_coverage.node.context" not in names
    told = dict(found[-1].system_health.indicators)
    assert told == {
        "reason": "policy", "priority": "NORMAL", "step_index": "0", "policy": "tamiyo_gnn_v1", "timeout_budget_ms": "45"
    }  # fmt: skip
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
    (entry,) = compile_status(tmp_path)[bundle.build_id].values()
    assert entry["status"] == "EAGER_FALLBACK"
    assert "no-such-backend" in entry["error"]
    events = [[e.description for p in policy.drain_telemetry() for e in p.events] for policy in (first, second)]
    assert events == [["tamiyo.gnn.compile_failed"], []]
    eager = policy_of(bundle).decide(packet(), snapshot)
    assert torch.equal(second.decide(packet(), snapshot).outputs.seed_value, eager.outputs.seed_value)


def test_what_compiles_is_recorded_and_answers_the_same(
    bundle: Bundle, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a real compilation of the whole network takes minutes on a CPU
    monkeypatch.setattr(torch, "compile", lambda network, **options: network)
    policy = policy_of(bundle, EAGER.model_copy(update={"compile": True}), home=tmp_path)
    (way,) = compile_status(tmp_path)[bundle.build_id].items()
    assert (way[0], way[1]["status"], policy.compiling.status) == ("cpu/float32/inductor", "COMPILED", "COMPILED")
    found, eager = policy.decide(packet(), snapshot), policy_of(bundle).decide(packet(), snapshot)
    torch.testing.assert_close(found.outputs.seed_value, eager.outputs.seed_value)


def test_a_later_failure_is_told_once_and_answered_eagerly(
    bundle: Bundle, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: list[bool] = []

    def compile(network: torch.nn.Module, **options: object) -> Any:
        def call(*args: object) -> object:
            if broken:
                raise RuntimeError(f"the compiled code broke at {hex(id(args))}")
            return network(*args)

        return call

    monkeypatch.setattr(torch, "compile", compile)
    config = EAGER.model_copy(update={"compile": True})
    policy = policy_of(bundle, config, home=tmp_path)
    policy.decide(packet(0), snapshot)
    policy.drain_telemetry()
    broken.append(True)
    eager = policy_of(bundle).decide(packet(0), snapshot).outputs.seed_value
    for _ in range(3):
        assert policy.decide(packet(0), snapshot).outputs.seed_value.shape == eager.shape
    for thread in threading.enumerate():
        if thread.name == "tamiyo-compile-status":
            thread.join()
    told = [e.description for p in policy.drain_telemetry() for e in p.events]
    assert told == ["tamiyo.gnn.compile_failed"]
    (entry,) = compile_status(tmp_path)[bundle.build_id].values()
    assert entry["status"] == policy.compiling.status == "EAGER_FALLBACK"
    # a process that starts later and fails so again has nothing new to tell, one that compiles again says so in the file alone
    assert [e for p in policy_of(bundle, config, home=tmp_path).drain_telemetry() for e in p.events] == []
    broken.clear()
    assert policy_of(bundle, config, home=tmp_path).drain_telemetry() == []
    assert [way["status"] for way in compile_status(tmp_path)[bundle.build_id].values()] == ["COMPILED"]
    broken.append(True)
    assert len(policy_of(bundle, config, home=tmp_path).drain_telemetry()) == 1


def test_a_graph_beside_its_companion_has_the_same_answers(bundle: Bundle, snapshot: Snapshot) -> None:
    policy = policy_of(bundle)
    for seeds in (0, 1, 3):
        rows = decode_packets([packet(seeds=seeds).SerializeToString()])
        batch = scale(policy._engine.build(rows, snapshot, pin=False).batch, bundle.norms.priors)
        network = policy._engine.network
        alone = bundle.network(batch, torch.ones(seeds, 32, dtype=torch.bool)).tensors()
        for nodes in (2, 5):
            beside = network._together(bundle.network, companion(nodes), batch, torch.ones(seeds, 32, dtype=torch.bool))
            for name, tensor in beside.tensors().items():
                assert tensor.shape == alone[name].shape
                torch.testing.assert_close(tensor, alone[name], atol=1e-5, rtol=1e-5)


def test_a_swap_under_threads_gives_each_decision_one_bundle(
    bundle: Bundle, snapshot: Snapshot, published: Home  # noqa: F811
) -> None:  # fmt: skip
    second = published.path / "bundles" / published.inputs("b").build_id
    first = bundle.path
    if not second.exists():
        published.write("b")
    policy = TamiyoPolicy.load(first, EAGER, clock=lambda: START)
    digests = {read_bundle(path).build_id: read_bundle(path).manifest_digest for path in (first, second)}
    seen: list[tuple[str, str, str]] = []
    faults: list[BaseException] = []
    done = threading.Event()

    def work(run: str) -> None:
        step = 0
        while not done.is_set():
            try:
                found = policy.decide(packet(step, training_run_id=run), snapshot)
            except BaseException as fault:  # noqa: BLE001 - whatever it is, the test shows it
                faults.append(fault)
                return
            notes = found.command.annotations
            seen.append((found.build_id, notes["build_id"], notes["feature_manifest"]))
            step += 1

    threads = [threading.Thread(target=work, args=(f"run-{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for path in (second, first, second):
        before = len(seen)
        while len(seen) < before + 6 and not faults:
            done.wait(0.01)
        assert policy.swap(path) == path.name
    before = len(seen)
    while len(seen) < before + 6 and not faults:
        done.wait(0.01)
    done.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert {build for build, *_ in seen} == set(digests)
    assert all(said == build and manifest == digests[build] for build, said, manifest in seen)


def test_runs_keep_their_state_across_a_swap(bundle: Bundle, snapshot: Snapshot, published: Home) -> None:  # noqa: F811
    other = published.path / "bundles" / published.inputs("b").build_id
    if not other.exists():
        published.write("b")
    policy = TamiyoPolicy.load(bundle.path, EAGER, clock=lambda: START)
    for step in range(3):
        policy.decide(packet(step), snapshot)
    saved = policy.save()
    policy.swap(other)
    assert policy.save() == saved
    straight = TamiyoPolicy.load(bundle.path, EAGER, clock=lambda: START)
    straight.restore(saved)
    swapped = policy.decide(packet(3), snapshot)
    assert swapped.build_id == other.name
    assert torch.equal(swapped.outputs.seed_value, straight.decide(packet(3), snapshot).outputs.seed_value)


def test_a_refused_swap_leaves_the_old_bundle(bundle: Bundle, snapshot: Snapshot, tmp_path: Path) -> None:
    policy = policy_of(bundle)
    with pytest.raises(BundleRejected, match="The serving bundle stays"):
        policy.swap(tmp_path)
    assert policy.decide(packet(), snapshot).build_id == bundle.build_id


def test_configuration_comes_from_arguments_environment_file_and_defaults(tmp_path: Path) -> None:
    (tmp_path / "serving.toml").write_text('budget_ms = 10\ndevice = "auto"\nmax_harm = 0.5\n')
    found = ServingConfig.resolve(
        tmp_path, environment={"TAMIYO_SERVING_BUDGET_MS": "20", "TAMIYO_SERVING_TF32": "1"}, max_harm=0.1
    )
    assert (found.budget_ms, found.device, found.max_harm, found.tf32, found.pause_steps) == (20.0, "auto", 0.1, True, 10)
    with pytest.raises(ServingError, match="budgetms"):
        ServingConfig.resolve(environment={"TAMIYO_SERVING_BUDGETMS": "20"})
    (tmp_path / "serving.toml").write_text("budget_ms = ")
    with pytest.raises(ServingError, match="expected a TOML file"):
        ServingConfig.resolve(tmp_path, environment={})


@pytest.mark.parametrize(
    ("sheet", "kind", "events"),
    [
        ({"hazard_band": "HIGH", "risk_score": 0.7}, pb.COMMAND_OPTIMIZER, ["bsds_hazard_high"]),
        ({"hazard_band": "CRITICAL", "risk_score": 0.9}, pb.COMMAND_PAUSE, ["bsds_hazard_critical"]),
        ({"handling_class": "QUARANTINE", "risk_score": 0.9}, pb.COMMAND_PAUSE, []),
    ],
)
def test_a_hazard_is_told(bundle: Bundle, sheet: dict[str, Any], kind: int, events: list[str]) -> None:
    held = Snapshot.of(bundle, metadata_tables(**{name.replace("-", "_"): sheet for name in KERNELS}), START)
    policy = policy_of(bundle)
    decision = policy.decide(packet(), held)
    (told,) = policy.drain_telemetry()
    assert decision.publishes
    assert decision.command.command_type == kind
    assert [e.description for e in told.events if e.description != "degraded_inputs"] == events
    values = {m.name: m.value for m in told.metrics}
    assert values["tamiyo.blueprint.risk"] == pytest.approx(sheet["risk_score"])
    assert values["tamiyo.bsds.elevated_risk_flag"] == float(sheet["risk_score"] >= 0.8)
    band = sheet.get("hazard_band")
    assert (values["tamiyo.bsds.hazard_critical_signal"], values["tamiyo.bsds.hazard_high_signal"]) == (
        float(band == "CRITICAL"), float(band == "HIGH"),
    )  # fmt: skip
    assert told.system_health.indicators["priority"] == decision.command.annotations["priority"] != "NORMAL"
    if kind == pb.COMMAND_OPTIMIZER:
        assert decision.command.optimizer_adjustment.hyperparameters["learning_rate_scale"] == 0.5


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


def test_a_swap_is_refused_if_a_recent_live_graph_is_not_answered(
    bundle: Bundle, snapshot: Snapshot, tmp_path: Path
) -> None:  # fmt: skip
    """A bundle whose golden graphs are empty, so that what its network can't answer shows on live graphs alone."""
    policy = TamiyoPolicy.load(bundle.path, EAGER, clock=lambda: START)
    for step in range(RECENT):
        policy.decide(packet(step), snapshot)
    sick = read_bundle(bundle.path)
    scale = sick.network.encoders["layer"].embedding.scale
    scale.scale.zero_(), scale.center.zero_()  # 0 / 0 where a layer has no value
    golden = write_golden(sick.network, [blank_batch()] * 2, torch.ones(32, dtype=torch.bool), sick.norms.priors)
    members = read_members(bundle.path) | {GOLDEN: golden}
    write_members(tmp_path / "sick", with_member(members, WEIGHTS, safetensors.torch.save(sick.network.state_dict())))
    assert preflight(tmp_path / "sick").clean
    with pytest.raises(BundleRejected, match=r"live output \w+: expected finite numbers.*The serving bundle stays"):
        policy.swap(tmp_path / "sick")
    assert policy.decide(packet(RECENT), snapshot).build_id == bundle.build_id
    fresh = TamiyoPolicy.load(bundle.path, EAGER, clock=lambda: START)
    fresh.swap(tmp_path / "sick")  # nothing live to say so yet


def test_a_policy_that_did_not_decide_yet_saves_the_states_it_was_given(bundle: Bundle, snapshot: Snapshot) -> None:
    first, second = policy_of(bundle), policy_of(bundle)
    assert second.save() == b""
    second.restore(second.save())
    first.decide(packet(0), snapshot)
    second.restore(first.save())
    assert second.save() == first.save()
    with pytest.raises(FeatureError, match="saved run states"):
        second.restore(b"{}")
    assert second.save() == first.save()
    second.forget("run-1")
    assert second.save() == b""


def test_live_graphs_are_kept_across_a_swap_and_few_of_them(bundle: Bundle, snapshot: Snapshot) -> None:
    policy = TamiyoPolicy.load(bundle.path, EAGER, clock=lambda: START)
    for step in range(RECENT + 3):
        policy.decide(packet(step), snapshot)
    before = list(policy._engine.recent)
    assert len(before) == RECENT
    policy.swap(bundle.path)
    assert list(policy._engine.recent) == before
