"""Answer each packet within the budget, whatever happens: the policy's command, a PAUSE, or nothing, with the reason."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from gnn.online.command import answers, blank_command
from gnn.online.config import ServingConfig
from gnn.online.constraints import NORMAL, URGENT, Priority, Route
from gnn.online.policy import Decision, TamiyoPolicy
from gnn.online.snapshot import Snapshot
from gnn.online.telemetry import event, indicate, new_packet
from schemas.configuration import MODEL_NAME
from schemas.errors import ContractError, ServingError
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live.limits import AdjustedRuns, Breaker, Moment, PauseQuota, ProcessRow, process_row

NOT_A_STATE: Final = "not_a_state"  # a completion marker, or a packet that breaks its contract: nothing is to be decided
Serving = tuple[TamiyoPolicy, Snapshot]


@dataclass(frozen=True)
class Answer:
    """What is done about one packet. `command` is None if nothing is to be sent; `telemetry` reports it in any case."""

    reason: str
    priority: Priority
    route: Route
    command: pb.AdaptationCommand | None
    telemetry: pb.TelemetryPacket | None
    latency_ms: float
    stages_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def urgent(self) -> bool:
        """Whether its command goes to the emergency stream."""
        return self.priority in URGENT


class Decider:
    """Asks the policy in a thread of its own. For one caller at a time."""

    def __init__(
        self,
        config: ServingConfig,
        serving: Callable[[], Serving | None],
        metadata: Breaker,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`serving` gives the policy and the metadata to decide with, None if no bundle serves; `metadata` is their breaker."""
        self._config, self._serving, self._clock = config, serving, clock
        self.inference = Breaker(config.breaker_faults, config.breaker_open_s, clock)
        self.metadata = metadata
        self._quota = PauseQuota(config.pause_steps)
        self._adjusted = AdjustedRuns()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="tamiyo-inference")

    @property
    def conservative(self) -> bool:
        """Whether a breaker is open: PAUSE is all that is sent."""
        return self.inference.state != "closed" or self.metadata.state != "closed"

    def answer(self, data: bytes, packet: pb.SystemStatePacket) -> Answer:
        """Answer one packet; `data` are its bytes."""
        started = self._clock()
        serving = self._serving()
        paused = self._quota.paused(packet.training_run_id)
        if serving is None:
            return self._settle(packet, Moment(has_bundle=False, paused=paused), None, started)
        if self.metadata.state == "open" or not self.inference.allows():
            return self._settle(packet, Moment(conservative=True, paused=paused), None, started)
        found = self._ask(data, serving)
        if isinstance(found, Moment):
            return self._settle(packet, Moment(timed_out=found.timed_out, failed=found.failed, paused=paused), None, started)
        if found is None:
            self._forget(serving[0], packet)
            return Answer(NOT_A_STATE, NORMAL, Route.NO_OP, None, None, self._since(started))
        moment = Moment(route=found.choice.route, paused=paused, adjusted=packet.training_run_id in self._adjusted)
        return self._settle(packet, moment, found, started)

    def close(self) -> None:
        """Let the thread end; what it still computes is dropped."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _ask(self, data: bytes, serving: Serving) -> Decision | Moment | None:
        """Return the policy's decision; a `Moment` if it timed out or failed; None if the packet is no training state."""
        policy, snapshot = serving
        future: Future[Decision] = self._worker.submit(policy.evaluate, data, snapshot)
        try:
            error = future.exception(timeout=self._config.budget_ms / 1e3)
        except TimeoutError:
            future.cancel()
            self.inference.failed()
            return Moment(timed_out=True)
        if error is None:
            self.inference.succeeded()
            return future.result()
        if isinstance(error, ContractError | ServingError):
            self.inference.gave_up()
            return None
        self.inference.failed()
        return Moment(failed=True)

    def _forget(self, policy: TamiyoPolicy, packet: pb.SystemStatePacket) -> None:
        policy.forget(packet.training_run_id)
        self._quota.forget(packet.training_run_id)
        self._adjusted.forget(packet.training_run_id)

    def _settle(self, packet: pb.SystemStatePacket, moment: Moment, decision: Decision | None, started: float) -> Answer:
        """Return the answer, after the rules of the process have been applied."""
        row = process_row(moment)
        latency_ms = self._since(started)
        if row is None:
            if decision is None:
                raise ServingError(f"packet {packet.packet_id!r}: expected a decision or a row that speaks, found neither")
            choice = decision.choice
            self._quota.note(packet.training_run_id, choice.route)
            self._adjusted.note(packet.training_run_id, choice.route)
            command = decision.command if decision.publishes else None
            stages = decision.stages_ms
            return Answer(choice.reason, choice.priority, choice.route, command, decision.telemetry, latency_ms, stages)
        self._quota.note(packet.training_run_id, row.route)
        told = self._told(packet, row, moment, decision, latency_ms)
        command = None
        if row.route is Route.PAUSE:
            notes = {"reason": row.reason, "priority": row.priority, "policy_version": MODEL_NAME} | answers(packet)
            command = blank_command(pb.COMMAND_PAUSE, notes, self._config, time.time_ns())
        stages = decision.stages_ms if decision is not None else {}
        return Answer(row.reason, row.priority, row.route, command, told, latency_ms, stages)

    def _told(
        self, packet: pb.SystemStatePacket, row: ProcessRow, moment: Moment, decision: Decision | None, latency_ms: float
    ) -> pb.TelemetryPacket:
        """Return the telemetry of an answer that the process gave; if it overruled a decision of the policy, it says so."""
        told = new_packet(time.time_ns())
        if decision is not None:
            told.CopyFrom(decision.telemetry)
        else:
            told.metrics.add(name="tamiyo.gnn.inference.latency_ms", value=latency_ms, unit="ms")
        if moment.timed_out:
            event(told, "timeout_inference", pb.TELEMETRY_LEVEL_ERROR, {"latency_ms": f"{latency_ms:.3f}"})
        told.metrics.add(name="tamiyo.conservative_mode", value=float(self.conservative), unit="flag")
        said = told.system_health.indicators.get("priority", row.priority)
        priority = said if said in URGENT else row.priority
        indicate(told, reason=row.reason, priority=priority, step=packet.global_step, config=self._config)
        return told

    def _since(self, started: float) -> float:
        return (self._clock() - started) * 1e3
