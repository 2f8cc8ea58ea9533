"""Wire compatibility: the format's facts, unknown fields both ways, and the command that makes the module."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from schemas.decode import Limits
from schemas.decode.read.framing import read_frames
from schemas.leyline import leyline_pb2 as pb

# contracts.md section 3, below 100: names and numbers that running systems speak
FACTS = {
    "SystemStatePacket": "version current_epoch validation_accuracy validation_loss timestamp_ns hardware_context "
    "training_metrics seed_states packet_id global_step training_loss source_subsystem training_run_id experiment_name",
    "HardwareContext": "device_type device_id total_memory_gb available_memory_gb temperature_celsius utilization_percent "
    "compute_capability",
    "SeedState": "seed_id stage gradient_norm learning_rate layer_depth metrics age_epochs risk_score",
    "FieldReport": "version report_id command_id training_run_id seed_id blueprint_id outcome metrics "
    "observation_window_epochs issued_at tamiyo_policy_version follow_up_actions notes",
    "BlueprintDescriptor": "blueprint_id name tier allowed_parameters risk stage quarantine_only approval_required description",
    "BSDS": "version blueprint_id risk_score hazard_band handling_class resource_profile recommendation issued_at provenance",
    "KernelCatalogUpdate": "blueprint_id artifact_ref checksum guard_digest compile_ms prewarm_ms",
    "BusEnvelope": "message_type payload attributes",
    "BSDSIssued": "bsds",
    "BSDSFailed": "blueprint_id reason",
}
SPARSE = {
    "AdaptationCommand": {"version": 1, "command_id": 2, "command_type": 3, "target_seed_id": 4, "execution_deadline_ms": 5,
        "issued_at": 6, "issued_by": 7, "seed_operation": 10, "optimizer_adjustment": 11, "circuit_breaker": 12,
        "rollback_payload": 13, "annotations": 20},
    "TelemetryPacket": {"packet_id": 1, "timestamp": 2, "source_subsystem": 3, "level": 4, "metrics": 10, "events": 20,
        "spans": 30, "system_health": 40},
}  # fmt: skip


@pytest.mark.parametrize("name", [*FACTS, *SPARSE])
def test_fields_below_100_are_those_that_running_systems_speak(name: str) -> None:
    expected = SPARSE.get(name) or {field: number for number, field in enumerate(FACTS[name].split(), start=1)}
    declared = pb.DESCRIPTOR.message_types_by_name[name].fields
    assert {field.name: field.number for field in declared if field.number < 100} == expected
    assert all(100 <= field.number < 200 for field in declared if field.name not in expected)


def existing(name: str) -> Any:
    """The class of a message as a system knows it that was built before the additions: no field from 100 on."""
    file = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    for message in file.message_type:
        kept = [field for field in message.field if field.number < 100]
        ones = max((field.oneof_index for field in kept if field.HasField("oneof_index")), default=-1) + 1
        del message.field[:], message.oneof_decl[ones:]
        message.field.extend(kept)
    pool = descriptor_pool.DescriptorPool()
    for part in ("struct", "timestamp"):
        pool.AddSerializedFile(descriptor_pool.Default().FindFileByName(f"google/protobuf/{part}.proto").serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"leyline.v1.{name}"))


def ours() -> pb.SystemStatePacket:
    """A packet with additions at two depths."""
    found = pb.SystemStatePacket(packet_id="p", training_run_id="r", timestamp_ns=1, blueprint_id="b")
    found.layers.add(layer_id="l", loss=0.0)
    found.seed_states.add(seed_id="s", stage=3, alpha=0.0, training_run_id="r")
    return found


def test_our_bytes_parse_there_and_come_back_whole() -> None:
    there = existing("SystemStatePacket").FromString(ours().SerializeToString())
    assert (there.packet_id, there.seed_states[0].seed_id) == ("p", "s")
    assert "layers" not in there.DESCRIPTOR.fields_by_name
    assert pb.SystemStatePacket.FromString(there.SerializeToString()) == ours()


def test_fields_that_we_do_not_know_survive_a_round_trip() -> None:
    unknown = b"\xc2\x0c\x03new" + b"\xc8\x0c\x07"  # 200: "new", 201: 7
    inside = pb.SeedState(seed_id="s").SerializeToString() + unknown
    raw = pb.SystemStatePacket(packet_id="p").SerializeToString() + b"\x42" + bytes([len(inside)]) + inside + unknown
    found = pb.SystemStatePacket.FromString(raw)
    found.training_run_id = "r"
    again = found.SerializeToString()
    assert again.count(unknown) == 2
    assert pb.SystemStatePacket.FromString(again) == found


def test_packets_of_the_existing_system_come_back_as_they_were(esper_exports: Path) -> None:
    (path,) = (esper_exports / "tolaria/system_state").glob("*.binpb")
    raws = [raw for chunk in read_frames(path, ".binpb", Limits(), lambda _: False) for raw in chunk.raws]
    assert len(raws) > 50
    for raw in raws:
        assert len(pb.SystemStatePacket.FromString(raw).SerializeToString()) == len(raw)


def test_the_module_is_what_the_command_makes_of_the_proto(repository: Path, tmp_path: Path) -> None:
    rule = r"^proto: .*\n\t\$\(BIN\)/python (-m grpc_tools.protoc .*)$"
    command = re.search(rule, (repository / "Makefile").read_text(), re.MULTILINE)
    assert command is not None
    assert "make proto" in (repository / "schemas/leyline/leyline.proto").read_text()
    subprocess.run([sys.executable, *command[1].replace("_out=.", f"_out={tmp_path}").split()], cwd=repository, check=True)
    for name in ("leyline_pb2.py", "leyline_pb2.pyi"):
        made = (tmp_path / "schemas/leyline" / name).read_text()
        assert made == (repository / "schemas/leyline" / name).read_text(), f"run `make proto`: {name} is of another proto"
