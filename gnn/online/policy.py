"""TamiyoPolicy: online, a packet in, outputs and a command out; the same builder and bundle as offline, and no I/O."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gnn.bundle.preflight import preflight
from gnn.bundle.read import Bundle
from gnn.graph.builder import Built, GraphBuilder
from gnn.graph.scale import scale
from gnn.model.outputs import Outputs
from gnn.online.choice import Choice, KernelMasks, choose
from gnn.online.compiling import Compiled, compiled
from gnn.online.config import ServingConfig, torch_device
from gnn.online.coverage import GraphCoverage, graph_coverage
from gnn.online.snapshot import MISSING, Sheet, Snapshot, same_build
from gnn.online.telemetry import TelemetryQueue, compile_packet, decision_packet
from schemas.configuration import MODEL_NAME, RISK_CLASSES
from schemas.errors import BundleRejected, ServingError
from schemas.leyline import leyline_pb2 as pb


def command_of(
    choice: Choice, seed_id: str | None, annotations: dict[str, str], config: ServingConfig, now_ns: int
) -> pb.AdaptationCommand:
    """GERMINATE the chosen kernel at the chosen seed, or PAUSE for a no-op."""
    command = pb.AdaptationCommand(
        version=1,
        command_id=str(uuid.uuid4()),
        command_type=pb.COMMAND_PAUSE if choice.kernel is None else pb.COMMAND_SEED,
        execution_deadline_ms=config.deadline_ms,
        issued_by="tamiyo",
        annotations=annotations,
    )
    command.issued_at.FromNanoseconds(now_ns)
    if choice.kernel is not None:
        command.target_seed_id = seed_id or ""
        command.seed_operation.operation = pb.SEED_OP_GERMINATE
        command.seed_operation.blueprint_id = choice.kernel
    return command


def annotations_of(
    choice: Choice, sheet: Sheet, coverage: GraphCoverage, bundle: Bundle, snapshot: Snapshot, now_ns: int
) -> dict[str, str]:
    """All annotations; `sheet` is that of the chosen kernel, or of the host for a no-op."""
    found = coverage.annotations() | {
        "feature_manifest": bundle.manifest_digest,
        "policy_version": MODEL_NAME,
        "build_id": bundle.build_id,
        "metadata_age_ms": str(max(0, (now_ns - snapshot.taken_at_ns) // 1_000_000)),
        "bsds_hazard_band": sheet.hazard_band,
        "bsds_handling_class": sheet.handling_class,
        "bsds_resource_profile": sheet.resource_profile,
        "bsds_provenance": sheet.provenance,
        "bsds_risk": MISSING if sheet.risk is None else f"{sheet.risk:.6f}",
        "reason": choice.reason,
    }
    numbers = {"policy_value": choice.value, "policy_value_low": choice.value_low, "policy_value_high": choice.value_high}
    found |= {name: f"{value:.6f}" for name, value in numbers.items() if value is not None}
    found |= {f"policy_risk_{name}": f"{share:.6f}" for name, share in zip(RISK_CLASSES, choice.risk, strict=False)}
    return found | ({"blending_method": choice.blending} if choice.blending is not None else {})


@dataclass(frozen=True)
class Decision:
    """What the policy answers: the network's outputs (on the CPU), the choice in words, and the command to send."""

    outputs: Outputs
    choice: Choice
    command: pb.AdaptationCommand
    coverage: GraphCoverage


class TamiyoPolicy:
    """One bundle, ready to decide; keeps the state of the runs that it has seen. Not for several threads at once."""

    def __init__(
        self,
        bundle: Bundle,
        config: ServingConfig | None = None,
        *,
        home: Path | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Use `load`; `clock` gives nanoseconds since 1970 UTC."""
        self.bundle = bundle
        self.config = config or ServingConfig()
        self.device = torch_device(self.config)
        network = bundle.network.to(self.device)
        self.compiling: Compiled = compiled(network, bundle, self.config, self.device, home)
        self._masks = KernelMasks(bundle)
        self._builder: GraphBuilder | None = None
        self._saved: bytes | None = None
        self._queue = TelemetryQueue(self.config.telemetry_limit)
        self._clock = clock
        if self.compiling.fresh:
            self._queue.put(compile_packet(self.compiling, bundle.build_id, clock()))

    @classmethod
    def load(
        cls,
        path: Path | str,
        config: ServingConfig | None = None,
        *,
        home: Path | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> "TamiyoPolicy":
        """Read the bundle at `path` (or what `current` names) and preflight it; BundleRejected lists every mismatch.

        `home` is where `compile_status.json` is kept; None keeps none.
        """
        report = preflight(Path(path))
        if report.bundle is None or not report.clean:
            raise BundleRejected(f"bundle {path}: " + "; ".join(str(m) for m in report.mismatches))
        return cls(report.bundle, config, home=home, clock=clock)

    @torch.inference_mode()
    def decide(self, packet: bytes | pb.SystemStatePacket, metadata: Snapshot) -> Decision:
        """Decide on one packet with an immutable metadata snapshot of this bundle (`Snapshot.of(policy.bundle, tables)`).

        ContractError where the packet breaks its contract, ServingError where it is no training state.
        """
        started = time.perf_counter()
        same_build(metadata, self.bundle)
        built = self._build(packet, metadata)
        at_ns = int(built.features.joined.states.times[-1])
        mask = self._masks.of(built.batch, metadata, at_ns)
        outputs = self._answer(built, mask)
        choice = choose(outputs, mask, self.bundle.manifest.calibration, self.config)
        now = self._clock()
        coverage = graph_coverage(built.features, metadata)
        sheet = metadata.sheet(choice.kernel or _host(built), at_ns)
        annotations = annotations_of(choice, sheet, coverage, self.bundle, metadata, now)
        command = command_of(choice, _seed_id(built, choice), annotations, self.config, now)
        latency_ms = (time.perf_counter() - started) * 1e3
        self._queue.put(decision_packet(coverage, latency_ms, self.compiling, self.config, now))
        return Decision(outputs, choice, command, coverage)

    def drain_telemetry(self) -> list[pb.TelemetryPacket]:
        """The telemetry of the decisions since the last call: each packet once, at most `telemetry_limit` of them."""
        return self._queue.drain()

    def save(self) -> bytes:
        """The states of the runs so far, for `restore`."""
        return self._builder.save() if self._builder is not None else self._saved or b""

    def restore(self, saved: bytes) -> None:
        """Go on from saved states; FeatureError where they are damaged."""
        self._saved = saved or None
        if self._builder is not None and saved:
            self._builder.restore(saved)

    def forget(self, run: str) -> None:
        """Drop the state of a run that has ended."""
        if self._builder is not None:
            self._builder.forget(run)

    def _build(self, packet: bytes | pb.SystemStatePacket, snapshot: Snapshot) -> Built:
        if self._builder is None:
            self._builder = GraphBuilder(snapshot.metadata, self.bundle.registries, pin=self.device.type == "cuda")
            if self._saved is not None:
                self._builder.restore(self._saved)
        elif self._builder.metadata is not snapshot.metadata:
            self._builder.refresh(snapshot.metadata)
        data = packet if isinstance(packet, bytes) else packet.SerializeToString()
        built = self._builder.build_packets([data])
        if built.batch.num_graphs != 1:
            raise ServingError("packet: expected a training state, found a completion marker; nothing is to be decided on it")
        return built

    def _answer(self, built: Built, mask: Tensor) -> Outputs:
        """The outputs in float32 on the CPU; host tensors are pinned and copied without blocking where CUDA is used."""
        batch = scale(built.batch, self.bundle.norms.priors).to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            outputs: Outputs = self.compiling.module(batch, mask.to(self.device, non_blocking=True))
        return Outputs(**{name: tensor.float().cpu() for name, tensor in outputs.tensors().items()})


def _seed_id(built: Built, choice: Choice) -> str | None:
    if choice.seed is None:
        return None
    names = built.features.joined.nodes["seed"].names
    found = None if names is None else names.take(np.array([choice.seed])).arrow()[0].as_py()
    return str(found) if found is not None else None


def _host(built: Built) -> str | None:
    found = built.features.joined.states.hosts.arrow()[-1].as_py()
    return str(found) if found else None


__all__ = ["Decision", "ServingConfig", "Snapshot", "TamiyoPolicy"]
