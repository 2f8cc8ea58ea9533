"""Read and write Oona, four Redis streams with consumer groups: what is signed, and how a packet is answered exactly once."""

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from schemas.errors import ServingError
from schemas.leyline import leyline_pb2 as pb

NORMAL: Final = "oona.normal"
EMERGENCY: Final = "oona.emergency"
TELEMETRY: Final = "oona.telemetry"
POLICY: Final = "oona.policy"
STREAMS: Final = (EMERGENCY, NORMAL, TELEMETRY, POLICY)
SECRET: Final = "ESPER_LEYLINE_SECRET"
GROUP: Final = "tamiyo"
BATCH: Final = 64
BLOCK_MS: Final = 200
_PAYLOAD, _SIGNATURE = "payload", "signature"
_MARKS: Final = "tamiyo:answered"
BUS_FAULTS: Final = (redis.RedisError, OSError)

Fields = Mapping[bytes, bytes]


@dataclass(frozen=True)
class Message:
    """One entry of a stream, as it was delivered to us; `fields` is empty if the stream has dropped it since."""

    stream: str
    entry: str
    fields: Fields

    @property
    def payload(self) -> bytes | None:
        """The serialized BusEnvelope; None in an entry that only made the group."""
        return self.fields.get(_PAYLOAD.encode())

    @property
    def signature(self) -> bytes:
        """The signature of the payload; empty if the entry is not signed."""
        return self.fields.get(_SIGNATURE.encode(), b"")


def secret_of(environment: Mapping[str, str] | None = None) -> bytes | None:
    """Return the shared secret, or None if none is set: nothing is signed or checked then."""
    text = (os.environ if environment is None else environment).get(SECRET)
    return text.encode("utf-8") if text else None


def signature_of(secret: bytes, data: bytes) -> str:
    """Return Base64 of HMAC-SHA256(secret, data)."""
    return base64.b64encode(hmac.new(secret, data, hashlib.sha256).digest()).decode("ascii")


def is_signed(secret: bytes, payload: bytes, signature: bytes) -> bool:
    """Return whether `signature` is that of the payload."""
    return hmac.compare_digest(signature_of(secret, payload).encode("ascii"), signature)


def signed_command(command: pb.AdaptationCommand, secret: bytes | None) -> pb.AdaptationCommand:
    """Return the command with annotation `signature`, over its deterministic bytes without that annotation."""
    found = pb.AdaptationCommand()
    found.CopyFrom(command)
    found.annotations.pop("signature", None)
    if secret is not None:
        found.annotations["signature"] = signature_of(secret, found.SerializeToString(deterministic=True))
    return found


def entry_of(kind: int, payload: bytes, secret: bytes | None) -> dict[str, bytes | str]:
    """Return the fields of an entry that carries a message of that BusMessageType."""
    envelope = pb.BusEnvelope(message_type=pb.BusMessageType.ValueType(kind), payload=payload).SerializeToString()
    found: dict[str, bytes | str] = {_PAYLOAD: envelope}
    return found | ({_SIGNATURE: signature_of(secret, envelope)} if secret is not None else {})


def mark_of(packet: pb.SystemStatePacket) -> str:
    """Return the key that marks a packet as answered, made of what identifies the packet: its run, its id and its time."""
    identity = f"{packet.training_run_id}\0{packet.packet_id}\0{packet.timestamp_ns}".encode()
    return f"{_MARKS}:{hashlib.sha256(identity).hexdigest()[:32]}"


Outgoing = Sequence[tuple[str, Mapping[str, bytes | str]]]


class Oona:
    """One reader of the streams, as `consumer` of `group`. Not for several threads at once.

    Nothing is retried in here: a transaction that is sent again after a lost connection could be carried out twice.
    """

    def __init__(
        self, url: str, consumer: str, *, group: str = GROUP, streams: Sequence[str] = STREAMS, timeout_s: float = 5.0
    ) -> None:
        """Prepare a reader of the redis:// or unix:// `url`; nothing connects yet. Raises ServingError if it is no such URL."""
        self.group, self.consumer, self._streams = group, consumer, tuple(streams)
        try:
            self._redis: Any = redis.Redis.from_url(
                url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
            )
        except ValueError as error:
            raise ServingError(f"--redis {url}: expected a URL like redis://127.0.0.1:6379, found: {error}") from None

    def ensure_groups(self, start: str = "0") -> None:
        """Make the group on each stream that lacks it; it then sees what comes after entry `start`, `$` for what is new."""
        for stream in self._streams:
            try:
                self._redis.xgroup_create(stream, self.group, id=start, mkstream=True)
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    def read(self, *, left: bool = False, block_ms: int = BLOCK_MS) -> list[Message]:
        """Return new messages of all streams, the emergency stream's first.

        With `left`, return those that were delivered to us and never acknowledged. If there is none, wait for one for
        `block_ms`; 0 does not wait.
        """
        where = dict.fromkeys(self._streams, "0" if left else ">")
        block = None if left or not block_ms else block_ms
        found = self._redis.xreadgroup(self.group, self.consumer, where, count=BATCH, block=block) or []
        pairs = found.items() if isinstance(found, dict) else found
        by_stream = {_text(stream): _entries(entries) for stream, entries in pairs}
        return [Message(stream, *entry) for stream in self._streams for entry in by_stream.get(stream, [])]

    def claim(self, idle_s: float) -> list[Message]:
        """Return messages that another reader of our group took and left for `idle_s`; they are ours now."""
        found = []
        for stream in self._streams:
            answer = self._redis.xautoclaim(stream, self.group, self.consumer, int(idle_s * 1000), count=BATCH)
            found += [Message(stream, *entry) for entry in _entries(answer[1])]
        return found

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Acknowledge messages that have been dealt with."""
        pipe = self._redis.pipeline(transaction=False)
        for message in messages:
            pipe.xack(message.stream, self.group, message.entry)
        pipe.execute()

    def publish(self, outgoing: Outgoing) -> None:
        """Add entries to streams."""
        pipe = self._redis.pipeline(transaction=True)
        for stream, fields in outgoing:
            pipe.xadd(stream, fields)
        pipe.execute()

    def is_answered(self, mark: str) -> bool:
        """Return whether the packet of that mark was answered already."""
        return bool(self._redis.exists(mark))

    def answer(self, message: Message, mark: str, outgoing: Outgoing, answered_s: int) -> bool:
        """Publish the answer to a packet, mark it answered and acknowledge it: all or nothing. False if it was answered.

        The mark, the command and the acknowledgement are one transaction of Redis. Whoever is killed before it leaves the
        packet pending, to be decided again; after it there is nothing left to do. The mark also stops a second entry with
        the same packet, a reader that took the entry over while the first was slow, and ourselves if the connection was lost
        before we heard that the transaction was carried out.
        """
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.watch(mark)
            fresh = not pipe.exists(mark)
            pipe.multi()
            if fresh:
                pipe.set(mark, message.entry, ex=answered_s)
                for stream, fields in outgoing:
                    pipe.xadd(stream, fields)
            pipe.xack(message.stream, self.group, message.entry)
            try:
                pipe.execute()
            except redis.WatchError:
                return self.answer(message, mark, outgoing, answered_s)
        return fresh

    def lag(self) -> dict[str, int]:
        """Return entries that our group has not read yet, by stream."""
        found = {}
        for stream in self._streams:
            for group in self._redis.xinfo_groups(stream):
                if _text(group["name"]) == self.group:
                    found[stream] = int(group.get("lag") or 0)
        return found

    def pending(self) -> int:
        """Return entries that our group has read and not acknowledged."""
        groups = [group for stream in self._streams for group in self._redis.xinfo_groups(stream)]
        return sum(int(group["pending"]) for group in groups if _text(group["name"]) == self.group)

    def leave(self) -> None:
        """Take our group off the streams."""
        for stream in self._streams:
            self._redis.xgroup_destroy(stream, self.group)

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()


def _entries(entries: Any) -> list[tuple[str, Fields]]:
    # the newer protocol wraps a stream's entries in one more list
    if entries and isinstance(entries[0], list) and entries[0] and isinstance(entries[0][0], tuple | list):
        entries = entries[0]
    return [(_text(entry), fields or {}) for entry, fields in entries if entry is not None]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
