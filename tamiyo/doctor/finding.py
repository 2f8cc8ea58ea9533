"""Define what the doctor reports: one finding."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What is wrong with `part` (a file, a table, a bundle), and what was done about it; None if it still is wrong."""

    part: str
    problem: str
    repaired: str | None = None
