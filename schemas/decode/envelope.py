"""Bus envelopes: each carries one message, which is decoded as if it had lain in its own contract's folder."""

from collections.abc import Sequence

from schemas.contracts import FOLDERS, Folder, Reason
from schemas.contracts.enums import ENUMS
from schemas.contracts.oona import ROUTES
from schemas.decode.batches import message_class
from schemas.decode.collector import Collector, RawRecord

_HOMES = {
    "SystemStatePacket": "tolaria/system_state",
    "AdaptationCommand": "tamiyo/command",
    "FieldReport": "tamiyo/field_report",
    "TelemetryPacket": "tolaria/telemetry",
    "KernelCatalogUpdate": "tezzeret/kernel",
    "BSDSIssued": "urabrask/bsds",
    "BSDSFailed": "urabrask/bsds_failure",
}


def home_of(message: str) -> Folder:
    """The folder whose contract a routed message keeps."""
    return FOLDERS[_HOMES[message]]


def route(
    collector: Collector, payloads: Sequence[bytes], records: Sequence[RawRecord]
) -> dict[str, list[tuple[RawRecord, bytes]]]:
    """Messages inside envelopes by their type; an envelope without a contract table is rejected."""
    routed: dict[str, list[tuple[RawRecord, bytes]]] = {}
    envelope_class = message_class("BusEnvelope")
    for payload, record in zip(payloads, records, strict=True):
        try:
            envelope = envelope_class.FromString(payload)
        except ValueError as error:
            collector.reject_record(record, Reason.INVALID_PROTOBUF, f"expected a BusEnvelope: {error}")
            continue
        kind = ENUMS["BusMessageType"].text(envelope.message_type) or "UNSPECIFIED"
        message = ROUTES.get(kind)
        if message is None:
            expected = ", ".join(ROUTES)
            collector.reject_record(
                record, Reason.UNROUTED_MESSAGE_TYPE, f"message_type: expected one of {expected}, found {kind}"
            )
            continue
        collector.read(collector.folder.record, 1)
        routed.setdefault(message, []).append((RawRecord(record.position, envelope.payload), envelope.payload))
    return routed
