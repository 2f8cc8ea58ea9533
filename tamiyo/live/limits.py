"""Decide around the policy: budget, breakers, pause quota, one adjustment a run; the process's rows of the constraint table."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from gnn.online.constraints import HIGH, NORMAL, Priority, Route

State = Literal["closed", "open", "half_open"]
_RUNS: Final = 10_000  # training runs that a quota remembers


@dataclass(frozen=True)
class Moment:
    """What there is when a packet is answered.

    `route` is the answer so far, `paused` counts the PAUSEs of the run within the steps of the quota, `adjusted` is whether
    the run was told to adjust its optimizer before.
    """

    has_bundle: bool = True
    conservative: bool = False
    timed_out: bool = False
    failed: bool = False
    route: Route = Route.GRAFT
    paused: int = 0
    adjusted: bool = False


@dataclass(frozen=True)
class ProcessRow:
    """One row: if it applies, the answer is `route` with that reason, whatever the policy says."""

    name: str
    priority: Priority
    route: Route
    applies: Callable[[Moment], bool]
    meaning: str

    @property
    def reason(self) -> str:
        """The reason that a command or telemetry carries."""
        return self.name


PROCESS: Final[tuple[ProcessRow, ...]] = (
    ProcessRow(
        "no_bundle", HIGH, Route.NO_OP, lambda m: not m.has_bundle, "no bundle serves; messages are landed all the same"
    ),
    ProcessRow(
        "conservative_mode",
        HIGH,
        Route.PAUSE,
        lambda m: m.conservative,
        "a breaker is open after `breaker_faults` faults in a row of inference or metadata",
    ),
    ProcessRow(
        "timeout_inference", HIGH, Route.PAUSE, lambda m: m.timed_out, "no answer within `budget_ms`; a late one is dropped"
    ),
    ProcessRow("inference_failed", HIGH, Route.PAUSE, lambda m: m.failed, "the inference ended with an error"),
    ProcessRow(
        "pause_quota",
        NORMAL,
        Route.NO_OP,
        lambda m: m.route is Route.PAUSE and m.paused > 0,
        "the run was paused within the last `pause_steps` steps: a sick policy never stalls training",
    ),
    ProcessRow(
        "already_adjusted",
        NORMAL,
        Route.NO_OP,
        lambda m: m.route is Route.ADJUST and m.adjusted,
        "the run was told to lower its learning rate before: once more at every packet would bring it to zero",
    ),
)


def process_row(moment: Moment, rows: Sequence[ProcessRow] = PROCESS) -> ProcessRow | None:
    """Return the first row that applies; the pause quota also overrules the PAUSE of another row."""
    spoke: ProcessRow | None = None
    for row in rows:
        route = moment.route if spoke is None else spoke.route
        if (spoke is None or row.name == "pause_quota") and row.applies(_with(moment, route)):
            spoke = row
    return spoke


def _with(moment: Moment, route: Route) -> Moment:
    return replace(moment, route=route)


class Breaker:
    """Opens for `open_s` after `faults` in a row; then one trial is let through, which closes it or opens it again."""

    def __init__(self, faults: int, open_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin closed; `clock` gives seconds that never go back."""
        self._faults, self._open_s, self._clock = faults, open_s, clock
        self._in_a_row = 0
        self._opened: float | None = None
        self._trying = False

    @property
    def state(self) -> State:
        """closed, open, or half_open: a trial may take place, or is taking place."""
        if self._opened is None:
            return "closed"
        return "half_open" if self._trying or self._clock() - self._opened >= self._open_s else "open"

    def allows(self) -> bool:
        """Return whether to try now; once the time of an open breaker has passed, true for one trial."""
        if self._opened is None:
            return True
        if self._trying or self._clock() - self._opened < self._open_s:
            return False
        self._trying = True
        return True

    def succeeded(self) -> None:
        """Count a success: the breaker is closed."""
        self._in_a_row, self._opened, self._trying = 0, None, False

    def failed(self) -> None:
        """Count a fault."""
        self._in_a_row += 1
        if self._trying or self._in_a_row >= self._faults:
            self._opened, self._trying = self._clock(), False

    def gave_up(self) -> None:
        """End a trial without a result, such as that of a packet which was no state: the next call is the trial."""
        self._trying = False


class PauseQuota:
    """Counts PAUSEs, of which a run may have at most one in `steps` steps; only the runs heard of last are remembered."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._runs: OrderedDict[str, deque[bool]] = OrderedDict()

    def paused(self, run: str) -> int:
        """Return the number of PAUSEs among the previous steps that count."""
        return sum(self._runs.get(run, ()))

    def note(self, run: str, route: Route) -> None:
        """Count one answered step of a run."""
        self._runs.setdefault(run, deque(maxlen=self._steps - 1)).append(route is Route.PAUSE)
        self._runs.move_to_end(run)
        if len(self._runs) > _RUNS:
            self._runs.popitem(last=False)

    def forget(self, run: str) -> None:
        """Drop a run that has ended."""
        self._runs.pop(run, None)


class AdjustedRuns:
    """Remembers the runs that were told last to adjust their optimizer."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, run: str) -> bool:
        """Return whether the run was told to adjust."""
        return run in self._runs

    def note(self, run: str, route: Route) -> None:
        """Take in one answer to a run."""
        if route is Route.ADJUST:
            self._runs[run] = None
            if len(self._runs) > _RUNS:
                self._runs.popitem(last=False)

    def forget(self, run: str) -> None:
        """Drop a run that has ended."""
        self._runs.pop(run, None)
