"""Answer a packet with outputs and a command, without I/O, by the same builder and bundle as offline (`TamiyoPolicy`)."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from gnn.bundle.preflight import Mismatch, preflight
from gnn.bundle.read import Bundle
from gnn.graph.batch import GraphBatch
from gnn.graph.builder import Built, GraphBuilder
from gnn.graph.scale import scale
from gnn.join.state import RunState, restore_states, save_states
from gnn.model.outputs import Outputs
from gnn.online.choice import Answers, Choice, choose
from gnn.online.command import Sheets, annotations_of, answers, command_of
from gnn.online.compiling import Compiled, Outcome
from gnn.online.config import ServingConfig, torch_device
from gnn.online.constraints import Route, candidates
from gnn.online.coverage import GraphCoverage, graph_coverage
from gnn.online.facts import BundleFacts, Facts, facts_of
from gnn.online.offered import OfferedOutputs
from gnn.online.snapshot import Snapshot
from gnn.online.telemetry import TelemetryQueue, compile_packet, decision_packet
from schemas.decode import decode_packets
from schemas.errors import BundleRejected, ServingError
from schemas.leyline import leyline_pb2 as pb

RECENT: Final = 8  # live graphs that a new bundle has to answer before it serves


@dataclass(frozen=True)
class Decision:
    """The policy's answer: the offered outputs (on the CPU), the choice, the command, and its coverage and telemetry.

    `command` is sent unless the choice's route is `no_op`. `stages_ms` are the times of building, network and choosing.
    """

    outputs: OfferedOutputs
    choice: Choice
    command: pb.AdaptationCommand
    coverage: GraphCoverage
    telemetry: pb.TelemetryPacket
    build_id: str
    stages_ms: Mapping[str, float]

    @property
    def publishes(self) -> bool:
        """Whether the command is to be sent."""
        return self.choice.route is not Route.NO_OP


@dataclass
class _Engine:
    """One bundle ready to decide; `builder` keeps the states of the runs, and is only used under the policy's lock.

    `first` holds the states that the builder will start from; it is used until the builder exists.
    """

    bundle: Bundle
    facts: BundleFacts
    network: Compiled
    builder: GraphBuilder | None = None
    first: Mapping[str, RunState] = field(default_factory=dict)
    recent: tuple[GraphBatch, ...] = field(default=(), repr=False)

    def build(self, rows: Mapping[str, pa.Table], snapshot: Snapshot, *, pin: bool) -> Built:
        """Return the graph of one packet, given as contract rows. Raises ServingError for a completion marker."""
        if self.builder is None:
            self.builder, self.first = GraphBuilder(snapshot.metadata, self.bundle.registries, self.first, pin=pin), {}
        elif self.builder.metadata is not snapshot.metadata:
            self.builder.refresh(snapshot.metadata)
        built = self.builder.build(rows)
        if built.batch.num_graphs != 1:
            raise ServingError("packet: expected a training state, found a completion marker; nothing is to be decided on it")
        self.recent = (*self.recent, built.batch)[-RECENT:]
        return built

    @property
    def states(self) -> Mapping[str, RunState]:
        return self.first if self.builder is None else self.builder.states

    def forget(self, run: str) -> None:
        if self.builder is not None:
            self.builder.forget(run)
        else:
            self.first = {name: state for name, state in self.first.items() if name != run}


class TamiyoPolicy:
    """The serving policy: decides with one bundle, and keeps the states of the runs that it has seen. It is thread-safe."""

    def __init__(
        self,
        bundle: Bundle,
        config: ServingConfig | None = None,
        *,
        home: Path | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Serve a bundle that passed preflight (`load` runs it); `clock` returns nanoseconds since 1970 UTC."""
        self.config = config or ServingConfig()
        self.device = torch_device(self.config)
        self._home, self._clock = home, clock
        # decisions queue up before the lock, so that an exchange of the bundle waits for one of them, not for all
        self._lock, self._queued = threading.Lock(), threading.Lock()
        self._swaps = threading.Lock()
        self._queue = TelemetryQueue(self.config.telemetry_limit)
        self._engine = self._engine_of(bundle)
        self._served = frozenset({bundle.build_id})

    @classmethod
    def load(
        cls,
        path: Path | str,
        config: ServingConfig | None = None,
        *,
        home: Path | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> "TamiyoPolicy":
        """Read the bundle at `path` (a directory, or a link such as `current`) and preflight it.

        `home` is where `compile_status.json` is kept; it is not kept if None.
        Raises BundleRejected, which lists every mismatch.
        """
        report = preflight(Path(path))
        if report.bundle is None or not report.clean:
            raise BundleRejected(f"bundle {path}: " + "; ".join(str(m) for m in report.mismatches))
        return cls(report.bundle, config, home=home, clock=clock)

    @property
    def bundle(self) -> Bundle:
        """The bundle that serves now."""
        return self._engine.bundle

    @property
    def compiling(self) -> Outcome:
        """How the network of the serving bundle runs."""
        return self._engine.network.outcome

    @property
    def fallbacks(self) -> int:
        """The number of torch.compile failures of the serving bundle in this process."""
        return self._engine.network.fallbacks

    def swap(self, path: Path | str) -> str:
        """Serve the bundle at `path` from the next decision on, and return its build id.

        It is preflighted, also against the serving bundle and recent live graphs, and warmed up while the old one serves on.
        The runs keep their states if both have the same features. Raises BundleRejected, which lists every mismatch; the old
        bundle then stays.
        """
        with self._swaps:
            report = preflight(Path(path), self.bundle, self._engine.recent)
            faults = [m for m in report.mismatches if not _of_an_older_registry(m)]
            if report.bundle is None or faults:
                raise BundleRejected(f"bundle {path}: " + "; ".join(map(str, faults)) + ". The serving bundle stays.")
            fresh = self._engine_of(report.bundle)
            with self._lock:
                if _same_features(fresh.bundle, self.bundle):
                    fresh.first = self._engine.states  # the old engine's, which is not used any more
                    fresh.recent = self._engine.recent
                self._served |= {fresh.bundle.build_id}
                self._engine = fresh
            return fresh.bundle.build_id

    def decide(self, packet: bytes | pb.SystemStatePacket, metadata: Snapshot) -> Decision:
        """Decide on one packet with a metadata snapshot (`Snapshot.of(policy.bundle, tables)`), and queue its telemetry.

        Raises ContractError if the packet breaks its contract, ServingError if it is not a training state.
        """
        decision = self.evaluate(packet, metadata)
        self._queue.put(decision.telemetry)
        return decision

    @torch.inference_mode()
    def evaluate(self, packet: bytes | pb.SystemStatePacket, metadata: Snapshot) -> Decision:
        """Decide as `decide` does, but queue no telemetry: for a caller that may have to discard a late decision."""
        started = time.perf_counter()
        self._require_served(metadata)
        data = packet if isinstance(packet, bytes) else packet.SerializeToString()
        rows = decode_packets([data])
        with self._queued, self._lock:
            engine = self._engine
            built = engine.build(rows, metadata, pin=self.device.type == "cuda")
        at_ns = int(built.features.joined.states.times[-1])
        coverage = graph_coverage(built.features, metadata)
        facts = facts_of(built, metadata, engine.facts, coverage.figures, self.config, at_ns)
        left, ruled = candidates(facts)
        after_build = time.perf_counter()
        outputs = self._answer(engine, built, torch.from_numpy(left.any(axis=2)))
        after_network = time.perf_counter()
        choice = Choice.ruled(ruled) if ruled is not None else self._choose(engine, outputs, left, facts)
        sheets = Sheets(facts.host, metadata.sheet(choice.kernel, at_ns) if choice.kernel is not None else None)
        now = self._clock()
        annotations = annotations_of(choice, sheets.shown(choice.route), coverage, engine.bundle, metadata, now)
        state = pb.SystemStatePacket.FromString(data) if isinstance(packet, bytes) else packet
        annotations |= answers(state)
        command = command_of(choice, facts, annotations, now)
        ended = time.perf_counter()
        stages = {
            "build": (after_build - started) * 1e3,
            "network": (after_network - after_build) * 1e3,
            "choose": (ended - after_network) * 1e3,
            "total": (ended - started) * 1e3,
        }
        told = decision_packet(coverage, choice, sheets, stages["total"], engine.network, self.config, state.global_step, now)
        offered = OfferedOutputs(outputs, engine.bundle.manifest.outputs)
        return Decision(offered, choice, command, coverage, told, engine.bundle.build_id, stages)

    def tell(self, packet: pb.TelemetryPacket) -> None:
        """Queue a telemetry packet for `drain_telemetry`."""
        self._queue.put(packet)

    def drain_telemetry(self) -> list[pb.TelemetryPacket]:
        """Return the telemetry queued since the last call: each packet once, at most `telemetry_limit` of them."""
        return self._queue.drain()

    def save(self) -> bytes:
        """Return the states of the runs so far, for `restore`; no bytes if nothing was decided or restored yet."""
        with self._lock:
            engine = self._engine
            return save_states(engine.states) if engine.states or engine.builder is not None else b""

    def restore(self, saved: bytes) -> None:
        """Go on from saved states. Raises FeatureError if they are damaged."""
        if not saved:
            return
        states = restore_states(saved)
        with self._lock:
            self._engine.builder, self._engine.first = None, states

    def forget(self, run: str) -> None:
        """Drop the state of a run that has ended."""
        with self._lock:
            self._engine.forget(run)

    def _engine_of(self, bundle: Bundle) -> _Engine:
        def told(outcome: Outcome) -> None:
            self._queue.put(compile_packet(outcome, bundle.build_id, self._clock()))

        moved = bundle.network if self.device.type == "cpu" else bundle.network.to(self.device)
        network = Compiled(moved, bundle, self.config, self.device, self._home, told)
        return _Engine(bundle, BundleFacts.of(bundle), network)

    def _require_served(self, snapshot: Snapshot) -> None:
        """Raise ServingError for a snapshot of a bundle that never served here: it was taken for another policy."""
        if snapshot.build_id not in self._served:
            raise ServingError(
                f"metadata: expected a snapshot of build {self.bundle.build_id}, found one of {snapshot.build_id}; "
                "take it with Snapshot.of(policy.bundle, tables)"
            )

    def _answer(self, engine: _Engine, built: Built, mask: Tensor) -> Outputs:
        """Return the outputs in float32 on the CPU; on CUDA, host tensors are pinned and copied without blocking."""
        batch = scale(built.batch, engine.bundle.norms.priors).to(self.device, non_blocking=True)
        outputs = engine.network(batch, mask.to(self.device, non_blocking=True))
        return Outputs(**{name: tensor.float().cpu() for name, tensor in outputs.tensors().items()})

    def _choose(self, engine: _Engine, outputs: Outputs, left: np.ndarray, facts: Facts) -> Choice:
        manifest = engine.bundle.manifest
        head = manifest.heads.get("blending")
        answers = Answers.of(outputs, manifest.calibration, blending=head is not None and head.trained)
        return choose(answers, left, facts)


def _same_features(first: Bundle, second: Bundle) -> bool:
    ours, theirs = first.manifest, second.manifest
    return ours.node_types == theirs.node_types and ours.relations == theirs.relations


def _of_an_older_registry(mismatch: Mismatch) -> bool:
    """Return whether it is a key that the new bundle's registry lacks: that is no fault if an older bundle serves again."""
    return mismatch.where.startswith("registry ") and ", key " in mismatch.where and mismatch.found == "None"


__all__ = ["Decision", "ServingConfig", "Snapshot", "TamiyoPolicy"]
