"""Send exports as live traffic: every message that Oona has a type for, in order of its event time, at a rate."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from schemas.contracts import FOLDERS, Folder
from schemas.decode import Limits
from schemas.decode.read.framing import read_frames
from schemas.decode.read.lines import read_lines
from schemas.errors import ContractError, ServingError
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus
from tamiyo.live.hub import event_time

KINDS: Final = {
    "SystemStatePacket": pb.BUS_MESSAGE_TYPE_SYSTEM_STATE,
    "AdaptationCommand": pb.BUS_MESSAGE_TYPE_ADAPTATION_COMMAND,
    "FieldReport": pb.BUS_MESSAGE_TYPE_FIELD_REPORT,
    "TelemetryPacket": pb.BUS_MESSAGE_TYPE_TELEMETRY,
    "KernelCatalogUpdate": pb.BUS_MESSAGE_TYPE_KERNEL_CATALOG_UPDATE,
    "BSDS": pb.BUS_MESSAGE_TYPE_BSDS_ISSUED,
    "BSDSFailed": pb.BUS_MESSAGE_TYPE_BSDS_FAILED,
}


@dataclass(frozen=True, order=True)
class Sent:
    """One message to send: its event time in ns (0: none), where it stood, its type and bytes."""

    at_ns: int
    file: str
    place: int
    kind: int
    payload: bytes


@dataclass(frozen=True)
class Traffic:
    """The messages of an exports root, oldest first, and how many records of which folder could not be sent, and why."""

    messages: tuple[Sent, ...]
    left_out: dict[str, int]

    @classmethod
    def of(cls, root: Path, files: Sequence[Path] | None = None) -> "Traffic":
        """Read all exports under `root`, or only `files`. Raises ServingError if there is no message among them."""
        found: list[Sent] = []
        left_out: Counter[str] = Counter()
        chosen = None if files is None else {path.resolve() for path in files}
        for name, folder in FOLDERS.items():
            for path in sorted((root / name).glob("*")):
                if not path.name.startswith(".") and (chosen is None or path.resolve() in chosen):
                    found += _of_file(path, path.relative_to(root).as_posix(), folder, left_out)
        if not found:
            raise ServingError(f"{root}: expected exports with messages that Oona carries, found none; name another directory")
        return cls(tuple(sorted(found)), dict(left_out))

    def send(
        self,
        url: str,
        secret: bytes | None,
        rate: float,
        told: Callable[[int], None] = lambda sent: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> int:
        """Publish the messages on oona.normal, telemetry on oona.telemetry: `rate` a second, 0 for as fast as it goes."""
        oona = bus.Oona(url, "traffic")
        started = clock()
        try:
            for number, message in enumerate(self.messages):
                ahead = number / rate - (clock() - started) if rate else 0.0
                if ahead > 0:
                    time.sleep(ahead)
                telemetry = message.kind == pb.BUS_MESSAGE_TYPE_TELEMETRY
                entry = bus.entry_of(message.kind, message.payload, secret)
                oona.publish([(bus.TELEMETRY if telemetry else bus.NORMAL, entry)])
                told(number + 1)
        except bus.BUS_FAULTS as fault:
            raise ServingError(f"--oona {url}: expected a Redis that takes messages, found: {fault}; start it first") from None
        finally:
            oona.close()
        return len(self.messages)


def _of_file(path: Path, file: str, folder: Folder, left_out: Counter[str]) -> Iterator[Sent]:
    extension = folder.extension(path.name)
    names = [name for name in folder.messages if name in KINDS]
    if extension is None or extension == ".parquet" or not names:
        left_out[f"{folder.path}: no message of Oona's" if not names else f"{folder.path}: {extension or path.suffix}"] += 1
        return
    limits = Limits()
    binary = extension in (".binpb", ".wal")
    chunks = read_frames(path, extension, limits, lambda raw: True) if binary else read_lines(path, extension, limits)
    place = 0
    for chunk in chunks:
        for raw in chunk.raws:
            message = _parsed(names, raw, binary=binary)
            if message is None:
                left_out[f"{folder.path}: undecodable"] += 1
            else:
                yield _sent(message, file, place)
            place += 1


def _parsed(names: Sequence[str], raw: bytes, *, binary: bool) -> Message | None:
    """Return the record as a message; a BSDSIssued among BSDS records is recognized by its first byte."""
    name = "BSDSIssued" if names[0] == "BSDS" and binary and raw[:1] == b"\x0a" else names[0]
    message: Message = getattr(pb, name)()
    try:
        if binary:
            message.ParseFromString(raw)
        else:
            json_format.Parse(raw, message, ignore_unknown_fields=True)
    except (DecodeError, json_format.ParseError, ContractError, ValueError):
        return None
    return message


def _sent(message: Message, file: str, place: int) -> Sent:
    return Sent(event_time(message), file, place, *payload_of(message))


def payload_of(message: Message) -> tuple[int, bytes]:
    """Return the bus's type of a message and its bytes there; a BSDS goes as a BSDSIssued."""
    if isinstance(message, pb.BSDS):
        message = pb.BSDSIssued(bsds=message)
    kind = KINDS["BSDS" if isinstance(message, pb.BSDSIssued) else message.DESCRIPTOR.name]
    return kind, message.SerializeToString()


def entry_for(message: Message, secret: bytes | None) -> tuple[str, dict[str, bytes | str]]:
    """Return the stream and the entry of a message: telemetry on oona.telemetry, all else on oona.normal."""
    kind, payload = payload_of(message)
    stream = bus.TELEMETRY if kind == pb.BUS_MESSAGE_TYPE_TELEMETRY else bus.NORMAL
    return stream, bus.entry_of(kind, payload, secret)
