"""Build the AdaptationCommand of one decision, with its annotations."""

import uuid
from dataclasses import dataclass
from typing import Final

from gnn.bundle.read import Bundle
from gnn.online.choice import Choice
from gnn.online.config import ServingConfig
from gnn.online.constraints import Route
from gnn.online.coverage import GraphCoverage
from gnn.online.facts import Facts
from gnn.online.snapshot import MISSING, Sheet, Snapshot
from schemas.configuration import BLENDING_METHODS, MODEL_NAME, RISK_CLASSES
from schemas.leyline import leyline_pb2 as pb

ELEVATED_RISK: Final = 0.8
_TYPES: Final = {
    Route.GRAFT: pb.COMMAND_SEED,
    Route.ADJUST: pb.COMMAND_OPTIMIZER,
    Route.PAUSE: pb.COMMAND_PAUSE,
    Route.NO_OP: pb.COMMAND_PAUSE,
}


@dataclass(frozen=True)
class Sheets:
    """The safety sheets that a decision used: the host's, and the preferred kernel's if there is one."""

    host: Sheet
    kernel: Sheet | None

    def shown(self, route: Route) -> Sheet:
        """Return the sheet to annotate: the grafted kernel's, else the more hazardous of the two, the host's if equal."""
        if self.kernel is None:
            return self.host
        if route is Route.GRAFT or (route is not Route.NO_OP and _severity(self.kernel) > _severity(self.host)):
            return self.kernel
        return self.host

    @property
    def risk(self) -> float | None:
        """The highest risk score of the sheets, None if none has one."""
        risks = [sheet.risk for sheet in (self.host, self.kernel) if sheet is not None and sheet.risk is not None]
        return max(risks, default=None)

    def says(self, band: str) -> bool:
        """Return whether one of the sheets has that hazard band."""
        return band in (self.host.hazard_band, self.kernel.hazard_band if self.kernel is not None else "")


def _severity(sheet: Sheet) -> tuple[bool, bool, bool]:
    band = sheet.hazard_band
    return band == "CRITICAL", sheet.handling_class == "QUARANTINE", band == "HIGH"


def command_of(choice: Choice, facts: Facts, annotations: dict[str, str], now_ns: int) -> pb.AdaptationCommand:
    """Build the command: GERMINATE the chosen kernel at the chosen seed, lower the host's learning rate, or PAUSE.

    A no-op gets a PAUSE, which is not published.
    """
    command = blank_command(_TYPES[choice.route], annotations, facts.config, now_ns)
    if choice.seed is None or choice.kernel is None:
        return command
    if choice.route is Route.GRAFT:
        command.target_seed_id = facts.seed_ids[choice.seed]
        operation = command.seed_operation
        operation.operation = pb.SEED_OP_GERMINATE
        operation.blueprint_id = choice.kernel
        alpha = float(facts.alpha[choice.seed])
        operation.parameters["alpha"] = alpha if alpha == alpha else 0.0
        operation.parameters["blending_method_index"] = float(BLENDING_METHODS.index(choice.blending or BLENDING_METHODS[0]))
        # the full schedule: no other schedules have been measured yet
        operation.parameters["blending_schedule_start"] = 0.0
        operation.parameters["blending_schedule_end"] = 1.0
    elif choice.route is Route.ADJUST:
        command.target_seed_id = facts.seed_ids[choice.seed]
        adjustment = command.optimizer_adjustment
        adjustment.optimizer_id = facts.optimizer_families[choice.seed]
        adjustment.hyperparameters["learning_rate_scale"] = facts.config.hazard_learning_rate
        if facts.learning_rate is not None:
            adjustment.hyperparameters["learning_rate"] = facts.learning_rate * facts.config.hazard_learning_rate
    return command


def blank_command(
    kind: "pb.CommandType", annotations: dict[str, str], config: ServingConfig, now_ns: int
) -> pb.AdaptationCommand:
    """Return a command of that type from Tamiyo, with an id of its own, issued at `now_ns`."""
    command = pb.AdaptationCommand(
        version=1,
        command_id=str(uuid.uuid4()),
        command_type=kind,
        execution_deadline_ms=config.deadline_ms,
        issued_by="tamiyo",
        annotations=annotations,
    )
    command.issued_at.FromNanoseconds(now_ns)
    return command


def answers(packet: pb.SystemStatePacket) -> dict[str, str]:
    """Return the annotations that name the packet and run that a command answers; the command has no other reference."""
    return {"training_run_id": packet.training_run_id, "packet_id": packet.packet_id}


def annotations_of(
    choice: Choice, sheet: Sheet, coverage: GraphCoverage, bundle: Bundle, snapshot: Snapshot, now_ns: int
) -> dict[str, str]:
    """Return all annotations of a command; `sheet` is the safety sheet to show."""
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
        "priority": choice.priority,
    }
    numbers = {"policy_value": choice.value, "policy_value_low": choice.value_low, "policy_value_high": choice.value_high}
    found |= {name: f"{value:.6f}" for name, value in numbers.items() if value is not None}
    found |= {f"policy_risk_{name}": f"{share:.6f}" for name, share in zip(RISK_CLASSES, choice.risk, strict=False)}
    return found | ({"blending_method": choice.blending} if choice.blending is not None else {})
