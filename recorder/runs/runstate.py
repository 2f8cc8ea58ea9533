"""Hold the state of a host's run in progress: its host, seeds, clock and records, and the graft that is under way in it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from recorder.exports import Record, Records
from recorder.hosts import Host
from recorder.hosts.spec import HostSpec
from recorder.runs.isolation import Isolation
from recorder.runs.plan import RecordPlan
from recorder.runs.seeds import Seed
from recorder.runs.training import Snapshot, step_seed
from recorder.runs.trials import Trajectory
from recorder.speech.clock import Clock
from recorder.speech.health import Health, Machine

RUN_STREAM = 3  # the run's own batches; trials draw from other streams


@dataclass
class Attempt:
    """One graft in the run itself. `snapshot`, `base_loss` and `packet_id` are those of the start of blending."""

    number: int
    seed: Seed
    blending: str
    isolation: Isolation | None = None
    snapshot: Snapshot | None = None
    base_loss: float = math.nan
    packet_id: str = ""
    path: Trajectory = field(default_factory=Trajectory)

    def blended(self, step: int) -> int:
        """Return the steps since blending began; 0 before."""
        return 0 if self.snapshot is None else step - self.snapshot.step


@dataclass
class HostRun:
    """A run in progress. `risks` maps a blueprint id to its measured risk score, for the seeds that carry it.

    `packet_ids` are those of its packets so far. `obeys`: a policy elsewhere speaks for Tamiyo, and this run does not.
    `paused`: that policy told the run to stay as it is until the next packet is due.
    """

    plan: RecordPlan
    spec: HostSpec
    risks: Mapping[str, float]
    clock: Clock
    machine: Machine
    health: Health
    host: Host
    seeds: list[Seed] = field(default_factory=list)
    records: Records = field(default_factory=dict)
    step: int = 0
    losses_finite: bool = True
    attempt: Attempt | None = None
    attempts: int = 0
    packet_ids: list[str] = field(default_factory=list)
    obeys: bool = False
    paused: bool = False

    def emit(self, folder: str, record: Record) -> None:
        """Keep a record for its folder."""
        self.records.setdefault(folder, []).append(record)

    def seed_for(self, step: int) -> int:
        """Return the random seed of a step of the run itself."""
        return step_seed(self.spec.seed, self.spec.index, RUN_STREAM, step)

    def report_health(self, reason: str) -> None:
        """Emit Weatherlight's report on the recording as it is now, and Tamiyo's if the recorder speaks for it."""
        run_id, now = self.spec.run_id, self.clock.now()
        self.emit("weatherlight/telemetry", self.health.weatherlight(run_id, now, losses_finite=self.losses_finite))
        if not self.obeys:
            self.emit("tamiyo/telemetry", self.health.tamiyo(run_id, self.clock.now(), reason))
