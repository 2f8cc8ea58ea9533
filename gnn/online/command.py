"""The AdaptationCommand of a decision, with its annotations."""

import uuid

from gnn.bundle.read import Bundle
from gnn.online.choice import Choice
from gnn.online.config import ServingConfig
from gnn.online.coverage import GraphCoverage
from gnn.online.snapshot import MISSING, Sheet, Snapshot
from schemas.configuration import MODEL_NAME, RISK_CLASSES
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
