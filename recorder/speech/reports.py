"""Make Tamiyo's commands and field reports: what was tried in which state, and the outcome."""

import math
import statistics
from collections.abc import Sequence
from typing import Final

from recorder.hosts.spec import HostSpec
from recorder.speech.clock import stamp
from recorder.speech.uplift import Outcome
from schemas.leyline import leyline_pb2 as pb

POLICY_VERSION: Final = "recorder-exploration-1"
TRIGGER_THRESHOLD: Final = 0.02  # |u| under which a graft counts as neutral
POOL_WEIGHT: Final = 4.0  # how many degrees of freedom the state's pooled noise is worth beside a pair's own replicates


def graft_command(
    spec: HostSpec,
    seed_id: str,
    kernel_id: str,
    *,
    command_id: str,
    packet_id: str,
    method: str,
    steps: int,
    now_ns: int,
    operation: "pb.SeedOperation" = pb.SEED_OP_START_GRAFTING,
) -> pb.AdaptationCommand:
    """Return the command to graft (or first to germinate) a kernel at a seed.

    Its annotations name the blending method and the state in which it was given.
    """
    order = pb.SeedOperationCommand(operation=operation, blueprint_id=kernel_id)
    order.parameters["alpha_total_steps"] = steps
    command = pb.AdaptationCommand(
        version=1,
        command_id=command_id,
        command_type=pb.COMMAND_SEED,
        target_seed_id=seed_id,
        issued_at=stamp(now_ns),
        issued_by="recorder",
        seed_operation=order,
    )
    notes = {
        "blending_method": method,
        "packet_id": packet_id,
        "training_run_id": spec.run_id,
        "policy_version": POLICY_VERSION,
    }
    for name, value in notes.items():
        command.annotations[name] = value
    if spec.stress:
        command.annotations["stress"] = "true"
    return command


def _verdict(uplift: float) -> "pb.FieldReportOutcome":
    if not math.isfinite(uplift):
        return pb.FIELD_REPORT_OUTCOME_ABORTED
    if uplift > TRIGGER_THRESHOLD:
        return pb.FIELD_REPORT_OUTCOME_SUCCESS
    return pb.FIELD_REPORT_OUTCOME_REGRESSION if uplift < -TRIGGER_THRESHOLD else pb.FIELD_REPORT_OUTCOME_NEUTRAL


def field_report(
    spec: HostSpec,
    seed_id: str,
    kernel_id: str,
    outcome: Outcome,
    *,
    layer_id: str,
    command_id: str,
    packet_id: str,
    se: float,
    now_ns: int,
    aborted: bool = False,
    policy: str = POLICY_VERSION,
) -> pb.FieldReport:
    """Return one replicate's outcome at one horizon.

    `layer_id` is the first layer that the seed monitors, `se` the standard error of the mean uplift over this pair's
    replicates. `aborted` says that a gate ended the graft before its horizon, `policy` whose graft it was.
    """
    report = pb.FieldReport(
        version=1,
        report_id=f"{command_id}-h{outcome.horizon}-r{outcome.replicate}",
        command_id=command_id,
        training_run_id=spec.run_id,
        seed_id=seed_id,
        blueprint_id=kernel_id,
        outcome=pb.FIELD_REPORT_OUTCOME_ABORTED if aborted else _verdict(outcome.uplift),
        observation_window_epochs=max(1, outcome.horizon * spec.batch // spec.samples),
        issued_at=stamp(now_ns),
        tamiyo_policy_version=policy,
        layer_id=layer_id,
        packet_id=packet_id,
        control_delta=outcome.control_loss - outcome.base_loss,
        treated_delta=outcome.treated_loss - outcome.base_loss,
        base_loss=outcome.base_loss,
    )
    metrics = {
        "horizon_steps": float(outcome.horizon),
        "replicate": float(outcome.replicate),
        "uplift_test": outcome.uplift_test,
        "se": se,
        "dip": outcome.dip,
        "late_loss_sd": outcome.late_sd,
        "control_late_loss_sd": outcome.control_late_sd,
    }
    for name, value in metrics.items():
        if math.isfinite(value):
            report.metrics[name] = value
    return report


def standard_errors(uplifts: Sequence[Sequence[float]]) -> list[float]:
    """Return the standard error of each pair's mean uplift over its replicates.

    Two replicates alone say little about their own spread, so each pair's variance is shrunk to the mean variance of all
    pairs of the state: ((R - 1) s² + 4 s0²) / (R - 1 + 4), over R. NaN if a pair has a non-finite replicate.
    """
    variances = [statistics.variance(u) for u in uplifts if len(u) > 1 and all(map(math.isfinite, u))]
    pooled = statistics.fmean(variances) if variances else math.nan
    errors = []
    for values in uplifts:
        own = statistics.variance(values) if len(values) > 1 else 0.0
        free = len(values) - 1
        errors.append(math.sqrt((free * own + POOL_WEIGHT * pooled) / (free + POOL_WEIGHT) / max(len(values), 1)))
    return errors
