"""Declare Kasmina's tables: the state of each seed, exported on its own or inside Tolaria's packets."""

from typing import Final

import pyarrow as pa

from schemas.contracts.table import FLOATS, STRINGS, Column, Folder, Presence, Table, known

_TEXT: Final = pa.string()
_INT: Final = pa.int64()
_F32: Final = pa.float32()
_SENT: Final = Presence.EXPLICIT

SOURCES: Final = ("export", "packet")

SEED_STATE: Final = Table(
    name="kasmina.seed_state",
    description="One row a seed, run and time; at equal time a seed's export beats its copy in a packet.",
    key=("training_run_id", "seed_id", "timestamp_ns"),
    event_time="timestamp_ns",
    scope="training_run_id",
    message="SeedState",
    ranked=("source", SOURCES),
    columns=(
        Column("training_run_id", _TEXT, "The host run.", nullable=False),
        Column("seed_id", _TEXT, "The seed.", nullable=False),
        Column("timestamp_ns", _INT, "Event time.", "ns since 1970", nullable=False),
        Column("global_step", _INT, "Optimizer steps so far.", "steps", _SENT),
        Column("packet_id", _TEXT, "The packet that carried the state; NULL for exports.", presence=Presence.DERIVED),
        Column("source", _TEXT, "`export`, or `packet`.", presence=Presence.DERIVED, nullable=False),
        Column("stage", _TEXT, "Stage of the seed's life.", enum="SeedLifecycleStage"),
        Column("blueprint_id", _TEXT, "The blueprint that is attached."),
        Column("gradient_norm", _F32, "Norm of the seed's gradient."),
        Column("learning_rate", _F32, "The seed's learning rate."),
        Column("layer_depth", _INT, "Depth of the seed's site.", "layers"),
        Column("metrics", FLOATS, "Metrics by name; older exports carry fields only here."),
        Column("age_epochs", _INT, "Age.", "epochs", Presence.ZERO_OK),
        Column("risk_score", _F32, "Risk that Kasmina gives the seed.", "ratio"),
        Column("monitored_layers", STRINGS, "Ids of the layers that the seed monitors."),
        Column("monitoring_frequency", _F32, "Share of steps that are monitored.", "ratio", _SENT),
        Column("adaptation_trigger_threshold", _F32, "Threshold of adaptation.", "ratio", _SENT),
        Column("activity_level", _F32, "Activity.", "ratio", _SENT),
        Column("success_rate", _F32, "Share of successes.", "ratio", _SENT),
        Column("risk_tolerance", _F32, "Risk that the seed tolerates (field, else metrics).", "ratio", _SENT),
        Column("alpha", _F32, "Blending weight (field, else metrics).", "ratio", _SENT),
        Column("alpha_schedule_method", _TEXT, "How alpha moves.", path="alpha_schedule.method"),
        Column(
            "alpha_schedule_total_steps",
            _INT,
            "Length of the schedule (field, else metrics alpha_total_steps).",
            "steps",
            path="alpha_schedule.total_steps",
        ),
        Column(
            "alpha_schedule_temperature",
            _F32,
            "Temperature of the schedule (field, else metrics alpha_temperature).",
            path="alpha_schedule.temperature",
        ),
        Column("alpha_steps", _INT, "Steps of the schedule so far (metrics alpha_steps).", "steps", presence=Presence.DERIVED),
        Column(
            "blend_allowed", pa.bool_(), "Whether blending is allowed now (metrics blend_allowed).", presence=Presence.DERIVED
        ),
        Column("quarantine_only", pa.bool_(), "Only quarantined grafts.", presence=_SENT),
        Column("policy_version", _TEXT, "The policy that steers the seed."),
        Column(
            "capabilities_allowed_blending_methods",
            STRINGS,
            "NULL: not said; empty: none.",
            presence=_SENT,
            path="capabilities.allowed_blending_methods",
        ),
        Column(
            "capabilities_allowed_optimizer_families",
            STRINGS,
            "NULL: not said; empty: none.",
            presence=_SENT,
            path="capabilities.allowed_optimizer_families",
        ),
        Column(
            "capabilities_isolation_exemptions",
            STRINGS,
            "NULL: not said; empty: none.",
            presence=_SENT,
            path="capabilities.isolation_exemptions",
        ),
    ),
    warnings=(known("blueprint_id", "urza.blueprint", "blueprint_id", "The attached blueprint has an Urza record."),),
)

TABLES: Final = (SEED_STATE,)

FOLDERS: Final = (
    Folder(
        path="kasmina/seed_state",
        description="SeedState exports.",
        tables=(SEED_STATE.name,),
        messages=("SeedState",),
    ),
)
