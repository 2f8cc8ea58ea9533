"""Oona: the bus. Its envelopes carry messages of the other systems and are routed to their tables."""

from typing import Final

from schemas.contracts.table import Folder

ROUTES: Final[dict[str, str]] = {
    "SYSTEM_STATE": "SystemStatePacket",
    "ADAPTATION_COMMAND": "AdaptationCommand",
    "FIELD_REPORT": "FieldReport",
    "TELEMETRY": "TelemetryPacket",
    "KERNEL_CATALOG_UPDATE": "KernelCatalogUpdate",
    "BSDS_ISSUED": "BSDSIssued",
    "BSDS_FAILED": "BSDSFailed",
}

FOLDERS: Final = (
    Folder(
        path="oona/envelope",
        description="BusEnvelope, routed by message_type; a type without a contract table is rejected.",
        tables=(),
        extensions=(".binpb", ".wal", ".ndjson", ".ndjson.gz", ".ndjson.zst"),
        messages=("BusEnvelope",),
    ),
)
