"""Declare Urabrask's tables: blueprint safety data sheets, and blueprints for which none could be made."""

from typing import Final

import pyarrow as pa

from schemas.contracts.table import STRINGS, Column, Folder, Presence, Rule, Severity, Table, known

_TEXT: Final = pa.string()
_INT: Final = pa.int64()
_F32: Final = pa.float32()
_SENT: Final = Presence.EXPLICIT

SOURCES: Final = ("bsds", "issued", "urza")

BSDS: Final = Table(
    name="urabrask.bsds",
    description="One row a safety data sheet; joins prefer the stream (bsds, issued) to Urza's extras.",
    key=("blueprint_id", "issued_at_ns", "source"),
    event_time="issued_at_ns",
    message="BSDS",
    columns=(
        Column("blueprint_id", _TEXT, "The blueprint.", nullable=False),
        Column("issued_at_ns", _INT, "When it was issued.", "ns since 1970", _SENT, nullable=False, path="issued_at"),
        Column("source", _TEXT, "`bsds`, `issued` (BSDSIssued) or `urza`.", presence=Presence.DERIVED, nullable=False),
        Column("version", _INT, "Version of the contract that the producer speaks."),
        Column("risk_score", _F32, "Risk.", "ratio", Presence.ZERO_OK, low=0.0, high=1.0),
        Column("hazard_band", _TEXT, "Band of the risk.", enum="HazardBand"),
        Column("handling_class", _TEXT, "How to handle it.", enum="HandlingClass"),
        Column("resource_profile", _TEXT, "What it needs most.", enum="ResourceProfile"),
        Column("recommendation", _TEXT, "Notes on safe handling."),
        Column("provenance", _TEXT, "Who says so.", enum="Provenance"),
        Column("grafting_strategies", STRINGS, "Recommended grafting strategies."),
        Column("cooldown_ms", _F32, "Pause after an aggressive update.", "ms", _SENT),
        Column("gradient_instability", _F32, "Measured instability.", "ratio", _SENT),
        Column("failure_rate", _F32, "Measured share of failures.", "ratio", _SENT),
        Column("peak_memory_mb", _F32, "Peak memory.", "MB", _SENT),
        Column("latency_p95_ms", _F32, "95th percentile of latency.", "ms", _SENT),
    ),
    warnings=(
        Rule(
            "band_agrees_with_score",
            Severity.WARN,
            "Each hazard band admits a range of risk scores, as producers use them.",
            ("hazard_band", "risk_score"),
            bands=(("LOW", 0.0, 0.5), ("MEDIUM", 0.1, 0.75), ("HIGH", 0.3, 1.0), ("CRITICAL", 0.6, 1.0)),
        ),
        known("blueprint_id", "urza.blueprint", "blueprint_id", "The blueprint has an Urza record."),
    ),
)

BSDS_FAILURE: Final = Table(
    name="urabrask.bsds_failure",
    description="One row a blueprint for which no sheet could be made, and why.",
    key=("blueprint_id", "digest"),
    event_time=None,
    message="BSDSFailed",
    by_arrival=True,
    columns=(
        Column("blueprint_id", _TEXT, "The blueprint.", nullable=False),
        Column("digest", _TEXT, "SHA-256 of the record's content.", presence=Presence.DERIVED, nullable=False),
        Column("reason", _TEXT, "Why."),
    ),
)

TABLES: Final = (BSDS, BSDS_FAILURE)

FOLDERS: Final = (
    Folder(
        path="urabrask/bsds",
        description="BSDS, or BSDSIssued around one.",
        tables=(BSDS.name,),
        messages=("BSDS", "BSDSIssued"),
    ),
    Folder(
        path="urabrask/bsds_failure",
        description="BSDSFailed.",
        tables=(BSDS_FAILURE.name,),
        messages=("BSDSFailed",),
    ),
)
