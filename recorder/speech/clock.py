"""Give event times, UTC nanoseconds that never repeat within a process, and their protobuf and RFC 3339 forms."""

import time
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp


class Clock:
    """The system's clock, made strictly increasing, so that no two records of a process share their event time."""

    def __init__(self) -> None:
        self._last = 0

    def now(self) -> int:
        """Return nanoseconds since the epoch, later than every answer before."""
        self._last = max(self._last + 1_000, time.time_ns())
        return self._last


def stamp(nanoseconds: int) -> Timestamp:
    """Return the protobuf timestamp of an event time."""
    return Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


def rfc3339(nanoseconds: int) -> str:
    """Return the RFC 3339 text of an event time in UTC, with nine decimals."""
    second = datetime.fromtimestamp(nanoseconds // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{second}.{nanoseconds % 10**9:09d}Z"
