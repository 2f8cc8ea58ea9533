"""Declare Tezzeret's table: how kernels compiled, from its own updates, Urza's records and telemetry events."""

from typing import Final

import pyarrow as pa

from schemas.contracts.table import Column, Folder, Presence, Table, known

_TEXT: Final = pa.string()
_F32: Final = pa.float32()
_SENT: Final = Presence.EXPLICIT

SOURCES: Final = ("update", "urza", "event")

KERNEL: Final = Table(
    name="tezzeret.kernel",
    description="One row a blueprint, source and time of issue; without a time the newest arrival.",
    key=("blueprint_id", "issued_at_ns", "source"),
    event_time="issued_at_ns",
    nullable_key=("issued_at_ns",),
    by_arrival=True,
    warnings=(known("blueprint_id", "urza.blueprint", "blueprint_id", "The blueprint has an Urza record."),),
    message="KernelCatalogUpdate",
    columns=(
        Column("blueprint_id", _TEXT, "The blueprint.", nullable=False),
        Column("issued_at_ns", pa.int64(), "When it was issued; NULL: by arrival.", "ns since 1970", _SENT, path="issued_at"),
        Column(
            "source",
            _TEXT,
            "`update` (KernelCatalogUpdate), `urza` (its records) or `event` (telemetry).",
            presence=Presence.DERIVED,
            nullable=False,
        ),
        Column("status", _TEXT, "How it compiled.", enum="CompileStatus"),
        Column("compile_ms", _F32, "Compile time.", "ms"),
        Column("prewarm_ms", _F32, "Prewarm time.", "ms"),
        Column("strategy", _TEXT, "Compile strategy, where Urza or an event names one.", presence=Presence.DERIVED),
        Column("artifact_ref", _TEXT, "The artifact."),
        Column("checksum", _TEXT, "Its checksum."),
        Column("guard_digest", _TEXT, "Digest of its guards."),
    ),
)

TABLES: Final = (KERNEL,)

FOLDERS: Final = (
    Folder(
        path="tezzeret/kernel",
        description="KernelCatalogUpdate.",
        tables=(KERNEL.name,),
        messages=("KernelCatalogUpdate",),
    ),
)
