"""Verify commands before looking at what they ask for: signature, freshness, replays."""

import time
from collections.abc import Callable
from typing import Final

from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus

OLDEST_S: Final = 60.0
AHEAD_S: Final = 5.0
REMEMBERED_S: Final = 300.0
REASONS: Final = {
    "undecodable": "the entry holds no BusEnvelope with a command",
    "bad_signature": "the envelope's or the command's own signature is missing or another",
    "stale": "it was issued more than 60 s ago",
    "from_the_future": "it was issued more than 5 s ahead of the receiver's clock",
    "replayed": "a command of that id came within the last 300 s",
}


class Verifier:
    """Checks commands against one secret, and remembers their ids."""

    def __init__(self, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        """Remember no id yet; `clock` gives seconds since 1970 UTC."""
        self._secret, self._clock = secret, clock
        self._seen: dict[str, float] = {}

    def refusal(self, command: pb.AdaptationCommand) -> str | None:
        """Return why a command is not to be trusted; None if it is, and its id is then remembered."""
        signature = command.annotations.get("signature", "").encode("utf-8")
        unsigned = pb.AdaptationCommand()
        unsigned.CopyFrom(command)
        unsigned.annotations.pop("signature", None)
        if not bus.is_signed(self._secret, unsigned.SerializeToString(deterministic=True), signature):
            return "bad_signature"
        now = self._clock()
        age = now - (command.issued_at.seconds + command.issued_at.nanos / 1e9)
        if age > OLDEST_S:
            return "stale"
        if age < -AHEAD_S:
            return "from_the_future"
        # ids come in order of their time, so the oldest stand first
        while self._seen and now - next(iter(self._seen.values())) > REMEMBERED_S:
            del self._seen[next(iter(self._seen))]
        if command.command_id in self._seen:
            return "replayed"
        self._seen[command.command_id] = now
        return None
