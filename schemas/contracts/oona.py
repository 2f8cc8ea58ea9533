"""Declare Oona, the bus: its envelopes carry messages of the other systems and are routed to their tables."""

from typing import Final

from schemas.contracts.table import Folder

ENVELOPE: Final = "BusEnvelope"
ROUTES: Final[dict[str, tuple[str, str]]] = {
    "SYSTEM_STATE": ("SystemStatePacket", "tolaria/system_state"),
    "ADAPTATION_COMMAND": ("AdaptationCommand", "tamiyo/command"),
    "FIELD_REPORT": ("FieldReport", "tamiyo/field_report"),
    "TELEMETRY": ("TelemetryPacket", "tolaria/telemetry"),
    "KERNEL_CATALOG_UPDATE": ("KernelCatalogUpdate", "tezzeret/kernel"),
    "BSDS_ISSUED": ("BSDSIssued", "urabrask/bsds"),
    "BSDS_FAILED": ("BSDSFailed", "urabrask/bsds_failure"),
}
"""By message type: the Leyline message, and the folder whose contract it keeps. Telemetry of any source keeps one contract."""

FOLDERS: Final = (
    Folder(
        path="oona/envelope",
        description="BusEnvelope, routed by message_type; a type without a contract table is rejected.",
        tables=(),
        extensions=(".binpb", ".wal", ".ndjson", ".ndjson.gz", ".ndjson.zst"),
        messages=(ENVELOPE,),
    ),
)
