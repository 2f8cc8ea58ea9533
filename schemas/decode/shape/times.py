"""Parse times from text, in the same way for every format (contracts.md section 1)."""

import re
from datetime import date
from typing import Final

from schemas.contracts import Reason
from schemas.errors import ContractError

INT64_MAX: Final = 2**63 - 1
EXACT_FLOAT: Final = 2**53  # beyond it a float no longer holds every whole number
SUSPICIOUS_NS: Final = 946_684_800_000_000_000  # 2000-01-01: an event before it is more likely a clock that was never set
_SECOND: Final = 1_000_000_000
_EPOCH: Final = date(1970, 1, 1).toordinal()
_ISO: Final = re.compile(
    r"([+-]?\d{4,9})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s?([Zz]|[+-]\d\d(?::?\d\d)?)?)?"
)


class BadTime(ContractError):
    """A text that is not a time, or one that does not fit."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def iso_ns(text: str) -> int:
    """Return nanoseconds since 1970 (any int) of an ISO 8601 time; one without a zone is UTC. Raises BadTime for other text."""
    match = _ISO.fullmatch(text.strip())
    if match is None:
        raise BadTime(Reason.BAD_VALUE, f"expected an ISO 8601 time, found {text[:80]!r}")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        days = _days(int(year), int(month), int(day))
    except ValueError as error:
        raise BadTime(Reason.BAD_VALUE, f"expected an ISO 8601 time, found {text[:80]!r}: {error}") from None
    clock = [int(part or 0) for part in (hour, minute, second)]
    if clock[0] > 23 or clock[1] > 59 or clock[2] > 59:
        raise BadTime(Reason.BAD_VALUE, f"expected an ISO 8601 time, found {text[:80]!r}: no such time of a day")
    seconds = days * 86_400 + clock[0] * 3600 + clock[1] * 60 + clock[2] - _offset(zone, text)
    return seconds * _SECOND + int((fraction or "").ljust(9, "0"))


def fitting_ns(text: str) -> int:
    """Return nanoseconds since 1970 (0..2**63-1) of an ISO 8601 time. Raises BadTime if the text is bad or does not fit."""
    found = iso_ns(text)
    if not 0 <= found <= INT64_MAX:
        raise BadTime(Reason.TIME_OUT_OF_RANGE, f"expected nanoseconds since 1970 within 64 bits, found {text[:80]!r}")
    return found


def _days(year: int, month: int, day: int) -> int:
    """Return the days since 1970 of a date of any year, by the Gregorian calendar."""
    cycles, within = divmod(year - 1, 400)
    return date(within + 1, month, day).toordinal() + cycles * 146_097 - _EPOCH


def _offset(zone: str | None, text: str) -> int:
    """Return by how many seconds a zone is ahead of UTC. Raises BadTime if there is no such zone."""
    if zone is None or zone in "Zz":
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:
        raise BadTime(Reason.BAD_VALUE, f"expected an ISO 8601 time, found {text[:80]!r}: no such zone")
    return (hours * 3600 + minutes * 60) * (-1 if zone[0] == "-" else 1)
