"""Write canonical JSON of small values (keys sorted, no spaces, ASCII) and its SHA-256."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Canonical:
    """A value's canonical JSON and the hex SHA-256 of that text."""

    text: str
    digest: str


def canonical_json(value: Any) -> Canonical:
    """Return the canonical JSON of `value` and its digest."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return Canonical(text, hashlib.sha256(text.encode("ascii")).hexdigest())
