"""Evaluations and a clock for tests of alerts."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from lake.alerts.book import Evaluation, Problem

START = datetime(2026, 11, 27, 3, 0, tzinfo=UTC)
ASSET, CHECK = "coverage/by_key", "mandatory_coverage"


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def go(self, **by: float) -> None:
        self.now += timedelta(**by)


def evaluation(
    *problems: str, at: float = 0.0, run: str = "run-1", check: str = CHECK, runs: Iterable[str] = (), complete: bool = True
) -> Evaluation:
    """An evaluation `at` seconds after the start."""
    held = tuple(Problem(name, system="tolaria", runs=tuple(runs)) for name in problems)
    when = START + timedelta(seconds=at)
    return Evaluation(ASSET, check, when, held, "ERROR", "layer.loss 0.500", run, "/runs/1", complete)
