"""Declare Tamiyo's tables: its commands, and the reports on their outcomes."""

from typing import Final

import pyarrow as pa

from schemas.contracts.table import ATTRIBUTES, FLOATS, Column, Folder, Presence, Table, known

_TEXT: Final = pa.string()
_INT: Final = pa.int64()
_F32: Final = pa.float32()
_SENT: Final = Presence.EXPLICIT

FOLLOW_UPS: Final = pa.list_(pa.struct([("action_type", _TEXT), ("rationale", _TEXT)]))

COMMAND: Final = Table(
    name="tamiyo.command",
    description="One row an adaptation command.",
    key=("command_id",),
    event_time="issued_at_ns",
    message="AdaptationCommand",
    warnings=(
        known("seed_operation_blueprint_id", "urza.blueprint", "blueprint_id", "The blueprint to use has an Urza record."),
    ),
    columns=(
        Column("command_id", _TEXT, "The command.", nullable=False),
        Column("issued_at_ns", _INT, "When it was given.", "ns since 1970", _SENT, path="issued_at"),
        Column("version", _INT, "Version of the contract that the producer speaks."),
        Column("command_type", _TEXT, "Kind of command.", enum="CommandType"),
        Column("target_seed_id", _TEXT, "The seed that it is for."),
        Column("execution_deadline_ms", _INT, "Deadline.", "ms"),
        Column("issued_by", _TEXT, "Who gave it."),
        Column("payload", _TEXT, "Which payload was sent, by field name.", presence=Presence.DERIVED),
        Column("seed_operation_operation", _TEXT, "What to do.", path="seed_operation.operation", enum="SeedOperation"),
        Column("seed_operation_blueprint_id", _TEXT, "With which blueprint.", path="seed_operation.blueprint_id"),
        Column("seed_operation_parameters", FLOATS, "With which parameters.", path="seed_operation.parameters"),
        Column("optimizer_adjustment_optimizer_id", _TEXT, "Which optimizer.", path="optimizer_adjustment.optimizer_id"),
        Column(
            "optimizer_adjustment_hyperparameters", FLOATS, "Its new settings.", path="optimizer_adjustment.hyperparameters"
        ),
        Column(
            "circuit_breaker_desired_state",
            _TEXT,
            "State that the breaker shall take.",
            path="circuit_breaker.desired_state",
            enum="CircuitBreakerState",
        ),
        Column("circuit_breaker_rationale", _TEXT, "Why.", path="circuit_breaker.rationale"),
        Column("rollback_payload", _TEXT, "The rollback's Struct as JSON, keys sorted.", presence=Presence.DERIVED),
        Column("annotations", ATTRIBUTES, "Annotations by name."),
    ),
)

FIELD_REPORT: Final = Table(
    name="tamiyo.field_report",
    description="One row a measured outcome of a command.",
    key=("training_run_id", "report_id", "issued_at_ns"),
    event_time="issued_at_ns",
    scope="training_run_id",
    message="FieldReport",
    warnings=(
        known("blueprint_id", "urza.blueprint", "blueprint_id", "The grafted blueprint has an Urza record."),
        known("command_id", "tamiyo.command", "command_id", "The command that is reported on was exported."),
    ),
    columns=(
        Column("training_run_id", _TEXT, "The host run.", nullable=False),
        Column("report_id", _TEXT, "The report; ids start again in every process.", nullable=False),
        Column("issued_at_ns", _INT, "When it was written.", "ns since 1970", _SENT, nullable=False, path="issued_at"),
        Column("version", _INT, "Version of the contract that the producer speaks."),
        Column("command_id", _TEXT, "The command that it reports on."),
        Column("seed_id", _TEXT, "The seed."),
        Column("blueprint_id", _TEXT, "The blueprint that was grafted."),
        Column("outcome", _TEXT, "Outcome.", enum="FieldReportOutcome"),
        Column("metrics", FLOATS, "horizon_steps, replicate, uplift_test, se, dip, late_loss_sd, control_late_loss_sd, ..."),
        Column("observation_window_epochs", _INT, "Window of observation.", "epochs"),
        Column("tamiyo_policy_version", _TEXT, "The policy that gave the command."),
        Column("follow_up_actions", FOLLOW_UPS, "What to do next, and why."),
        Column("notes", _TEXT, "Notes."),
        Column("layer_id", _TEXT, "The site of the graft."),
        Column("packet_id", _TEXT, "The state in which the command was given."),
        Column("control_delta", _F32, "Change of the host's validation loss over the window without the graft.", "", _SENT),
        Column("treated_delta", _F32, "The same with the graft.", "", _SENT),
        Column("base_loss", _F32, "Validation loss at the start.", "", _SENT),
    ),
)

TABLES: Final = (COMMAND, FIELD_REPORT)

FOLDERS: Final = (
    Folder(path="tamiyo/command", description="AdaptationCommand.", tables=(COMMAND.name,), messages=("AdaptationCommand",)),
    Folder(path="tamiyo/field_report", description="FieldReport.", tables=(FIELD_REPORT.name,), messages=("FieldReport",)),
)
