"""Check one stream entry: what it carries and which export folder that belongs into, or why it is quarantined."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError, Message

from schemas.contracts import FOLDERS
from schemas.contracts.oona import FOLDERS as OONA
from schemas.contracts.oona import ROUTES
from schemas.decode import Limits
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus

TOO_LARGE: Final = "too_large"
BOOTSTRAP: Final = b"bootstrap"
_BEGINNING: Final = 64 << 10  # bytes that are kept of a message that is too large
_SIGNATURE: Final = 256  # bytes that are kept of a signature, which should have 44
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
    """Check the entry's signature, its envelope and what that carries.

    None for an entry that only made a group, or that the stream has dropped since.
    """
    payload = message.payload
    if payload is None:
        if not message.fields or set(message.fields) == {BOOTSTRAP}:
            return None
        names = ", ".join(ascii(name[:40]) for name in sorted(message.fields)[:10])
        return Refused("no_payload", f"the fields {names}")
    if len(payload) > limits.record_bytes:
        return Refused(TOO_LARGE, f"{len(payload)} bytes; at most {limits.record_bytes} are read")
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


def kept(message: bus.Message, refused: Refused) -> dict[str, str | int]:
    """Return what the quarantine keeps of a refused message: all of it, or beginning and digest if it is too large."""
    payload = message.payload if message.payload is not None else repr(dict(message.fields)).encode()[:_BEGINNING]
    found: dict[str, str | int] = {
        "stream": message.stream,
        "entry": message.entry,
        "reason": refused.reason,
        "found": refused.found,
        "payload": base64.b64encode(payload[:_BEGINNING] if refused.reason == TOO_LARGE else payload).decode("ascii"),
        "signature": message.signature[:_SIGNATURE].decode("ascii", "replace"),
    }
    if refused.reason == TOO_LARGE:
        found |= {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    return found
