"""One entry of a stream -> what it carries and which export folder that belongs into, or why it is quarantined."""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError, Message

from lake.durable.journal import Journal
from schemas.contracts import FOLDERS
from schemas.contracts.oona import FOLDERS as OONA
from schemas.contracts.oona import ROUTES
from schemas.decode import Limits
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus

QUARANTINE: Final = Path("quarantine") / "oona"
_PREFIX: Final = "BUS_MESSAGE_TYPE_"
_RAW: Final = OONA[0].path


@dataclass(frozen=True)
class Admitted:
    """A sound message: `kind` is the short name of its type, `payload` what is landed in `folder`."""

    kind: str
    folder: str
    payload: bytes
    message: Message | None


@dataclass(frozen=True)
class Refused:
    """A message that no pipeline may read, and the reason."""

    reason: str
    found: str


def admit(message: bus.Message, secret: bytes | None, limits: Limits) -> Admitted | Refused | None:
    """Check the entry's signature, its envelope and what that carries; None for an entry that only made a group."""
    payload = message.payload
    if payload is None:
        return None
    if len(payload) > limits.record_bytes:
        return Refused("too_large", f"{len(payload)} bytes; at most {limits.record_bytes} are read")
    if secret is not None and not bus.is_signed(secret, payload, message.signature):
        return Refused("bad_signature", "another signature" if message.signature else "no signature")
    try:
        envelope = pb.BusEnvelope.FromString(payload)
    except DecodeError as error:
        return Refused("undecodable", f"no BusEnvelope: {error}")
    number = envelope.message_type
    if number == pb.BUS_MESSAGE_TYPE_UNSPECIFIED or number not in pb.BusMessageType.values():
        return Refused("unknown_type", f"message_type {number}")
    kind = pb.BusMessageType.Name(number).removeprefix(_PREFIX)
    if kind not in ROUTES:
        return Admitted(kind, _RAW, payload, None)
    name, folder = ROUTES[kind]
    try:
        found: Message = getattr(pb, name).FromString(envelope.payload)
    except DecodeError as error:
        return Refused("undecodable", f"no {name}: {error}")
    if isinstance(found, pb.TelemetryPacket):
        # a source without a folder of its own keeps its envelope, which is read by the same contract
        own = f"{found.source_subsystem}/telemetry"
        return Admitted(kind, own, envelope.payload, found) if own in FOLDERS else Admitted(kind, _RAW, payload, found)
    return Admitted(kind, folder, envelope.payload, found)


class Quarantine:
    """`<home>/quarantine/oona/<day>.ndjson`: refused messages, whole, with their reasons; no pipeline reads it."""

    def __init__(self, home: Path) -> None:
        self.folder = home / QUARANTINE

    def put(self, message: bus.Message, refused: Refused) -> None:
        """Append one message and fsync."""
        now = datetime.now(UTC)
        Journal(self.folder / f"{now:%Y-%m-%d}.ndjson").append(
            [
                {
                    "at": now.isoformat(),
                    "stream": message.stream,
                    "entry": message.entry,
                    "reason": refused.reason,
                    "found": refused.found,
                    "payload": base64.b64encode(message.payload or b"").decode("ascii"),
                    "signature": message.signature.decode("ascii", "replace"),
                }
            ]
        )
