"""Read plain JSON (Urza's graphs): a written key is present, even if zero; undeclared keys are counted."""

import math
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.contracts import Reason
from schemas.decode.shape.collector import BadRecord, Drift
from schemas.decode.shape.columns import INT64_MAX
from schemas.decode.shape.times import EXACT_FLOAT, BadTime, fitting_ns

_NON_FINITE: Final = {"nan": math.nan, "infinity": math.inf, "-infinity": -math.inf, "inf": math.inf, "-inf": -math.inf}
_WHOLE: Final = re.compile(r"-?[0-9]{1,30}")


@dataclass
class Plain:
    """One JSON object and its name for messages. `non_finite` gathers the names of numbers that are not finite."""

    values: dict[str, Any]
    name: str
    drift: Drift
    non_finite: list[str] = field(default_factory=list)

    def value(self, key: str) -> Any:
        """Return the raw value; None if the key is absent or null."""
        return self.values.get(key)

    def bad(self, key: str, expected: str) -> BadRecord:
        """Return the error to raise for a value of the wrong kind."""
        return BadRecord(Reason.BAD_VALUE, f"{self.name}.{key}: expected {expected}, found {str(self.values.get(key))[:80]!r}")

    def text(self, key: str) -> str | None:
        """Return a string; None if it is empty or absent. Raises BadRecord for another kind of value."""
        value = self.values.get(key)
        if value is None or isinstance(value, str):
            return _encodable(value, self, key) or None
        raise self.bad(key, "a string")

    def number(self, key: str) -> float | None:
        """Return a number, given as number or string; NaN and infinities are missing and named. Raises BadRecord."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, str):
            value = _parsed(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.bad(key, "a number")
        try:
            number = float(value)
        except OverflowError:
            raise self.bad(key, "a number within 64 bits") from None
        if math.isfinite(number):
            return number
        self.non_finite.append(key)
        return None

    def count(self, key: str) -> int | None:
        """Return a whole number within 64 bits. Raises BadRecord for other values."""
        number = self.number(key)
        if number is None:
            return None
        value = self.values[key]
        whole = value if isinstance(value, int) else int(number)
        if not isinstance(value, int) and (whole != number or abs(whole) > EXACT_FLOAT):
            raise self.bad(key, "a whole number that is exact")
        if not -INT64_MAX <= whole <= INT64_MAX:
            raise BadRecord(Reason.INTEGER_TOO_LARGE, f"{self.name}.{key}: expected a 64-bit integer, found {number:g}")
        return whole

    def flag(self, key: str) -> bool | None:
        """Return a boolean. Raises BadRecord for another kind of value."""
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise self.bad(key, "true or false")

    def section(self, key: str) -> "Plain":
        """Return a nested object; an absent one reads as empty."""
        value = self.values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.bad(key, "an object")
        return Plain(value, f"{self.name}.{key}", self.drift)

    def items(self, key: str) -> list[Any]:
        """Return a list; an absent one reads as empty."""
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.bad(key, "a list")
        return value

    def texts(self, key: str) -> list[str] | None:
        """Return a list of strings; None if it is absent."""
        if self.values.get(key) is None:
            return None
        found = self.items(key)
        if not all(isinstance(item, str) for item in found):
            raise self.bad(key, "a list of strings")
        return [_encodable(item, self, key) or "" for item in found]

    def objects(self, key: str) -> Iterator[tuple[int, "Plain | BadRecord"]]:
        """Yield the list's objects with their positions; an item of another kind is yielded as its error."""
        for index, item in enumerate(self.items(key)):
            name = f"{self.name}.{key}[{index}]"
            if isinstance(item, dict):
                yield index, Plain(item, f"{self.name}.{key}", self.drift)
            else:
                yield index, BadRecord(Reason.BAD_VALUE, f"{name}: expected an object, found {type(item).__name__}")

    def count_others(self, known: Set[str]) -> None:
        """Count the keys that are not declared."""
        for key in self.values.keys() - known:
            self.drift.count(f"{self.name}.{key[:80]}")


def is_text(value: str) -> bool:
    """Return whether a string is Unicode text: JSON can spell a lone surrogate, which Arrow can't hold."""
    if value.isascii():
        return True
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _encodable(value: str | None, where: Plain, key: str) -> str | None:
    """Return the string. Raises BadRecord if it is not Unicode text."""
    if value is not None and not is_text(value):
        raise where.bad(key, "a string of Unicode text")
    return value


def _parsed(text: str) -> Any:
    if text.strip().lower() in _NON_FINITE:
        return _NON_FINITE[text.strip().lower()]
    try:
        return float(text)
    except ValueError:
        return text


def time_ns(value: Any, name: str) -> int:
    """Return nanoseconds since 1970 from ISO 8601 text, or from nanoseconds as a number or numeric string. Raises BadRecord."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT_FLOAT:
        nanoseconds = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        nanoseconds = value
    elif isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        nanoseconds = int(value)
    elif isinstance(value, str):
        try:
            nanoseconds = fitting_ns(value)
        except BadTime as error:
            raise BadRecord(error.reason, f"{name}: {error}") from None
    else:
        raise BadRecord(Reason.BAD_VALUE, f"{name}: expected an ISO 8601 time or whole nanoseconds, found {str(value)[:80]!r}")
    if not 0 <= nanoseconds <= INT64_MAX:
        raise BadRecord(
            Reason.TIME_OUT_OF_RANGE, f"{name}: expected nanoseconds since 1970 within 64 bits, found {nanoseconds}"
        )
    return nanoseconds
