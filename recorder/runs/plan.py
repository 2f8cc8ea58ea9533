"""Configure a recording with pydantic, and derive its hosts."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from recorder.data import DATA_SETS
from recorder.hosts import ARCHITECTURES, HostSpec, draw_host, fits
from recorder.runs.compiling import USUAL_BACKEND, known_backend
from recorder.runs.grid import Grid

Format = Literal["mixed", "binpb", "wal", "ndjson", "ndjson.gz", "ndjson.zst", "parquet"]


REPLICATED: Final = 5  # pairs are tried twice on every fifth host
FIRST_STATE: Final = 60  # step of the first state under trial
_LAST_STATE: Final = 180


def state_steps(count: int) -> tuple[int, ...]:
    """Return the steps of `count` states (1 to 12) under trial in a run, all at packets: from 60 on, evenly before 180."""
    apart = (_LAST_STATE - FIRST_STATE) // count // 10 * 10
    return tuple(FIRST_STATE + apart * number for number in range(count))


class RecordPlan(BaseModel):
    """One recording. Hosts 0, 1, 2, ... of `seed` are recorded until `hosts` are done or `minutes` are over.

    What host i shows depends on the seed and the grid (sites, states, replicates, horizons) only, never on `minutes`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    exports: Path
    seed: int = Field(default=1, ge=0)
    minutes: float | None = Field(default=None, gt=0)
    hosts: int | None = Field(default=None, ge=1)
    format: Format = "mixed"
    workers: int = Field(default=1, ge=1)
    rotate_hosts: int = Field(default=12, ge=1, description="hosts a file: when a batch is complete its files appear")
    every: int = Field(default=10, ge=2, description="steps between packets")
    warmup_steps: int = Field(default=40, ge=20)
    states: tuple[int, ...] = Field(default=state_steps(1), description="steps at which kernels are tried")
    graft_steps: tuple[int, ...] = Field(default=(50, 120), description="steps at which a graft of the run's own germinates")
    total_steps: int = Field(default=200, ge=60)
    sites: int = Field(default=2, ge=1, le=4, description="candidate sites; every fourth host has one more, every eighth two")
    kernels: int | None = Field(
        default=14, ge=2, description="pairs of a state: kernels dealt to its sites; None = all at each"
    )
    methods: int = Field(default=1, ge=0, le=3, description="other blending methods that one of the pairs is tried with")
    replicates: int | None = Field(default=None, ge=1, description="of every pair; None = one, and two on every fifth host")
    replicate_cap: int = Field(default=2, ge=1, description="of a pair whose |mean u| is under two standard errors")
    horizons: tuple[int, ...] = Field(default=(50, 100))
    long_horizon: int = Field(default=200, ge=20)
    long_every: int = Field(default=10, ge=0, description="every how many hosts the long horizon is measured; 0 = never")
    sheet_hosts: int = Field(default=6, ge=1, description="training hosts whose outcomes make the kernels' sheets")
    stress_share: float = Field(default=0.15, ge=0, le=1)
    compile_backend: Annotated[str, AfterValidator(known_backend)] = Field(
        default=USUAL_BACKEND, description="torch.compile backend that kernels and hosts really go through"
    )
    data_sets: tuple[str, ...] = tuple(DATA_SETS)
    architectures: tuple[str, ...] = tuple(ARCHITECTURES)

    def pairs(self) -> list[tuple[str, str]]:
        """Return the data sets with the architectures that can read them, in the order in which hosts take turns.

        Neighbours differ in both.
        """
        kinds, data_sets = self._turns(), self.data_sets
        turns = [
            (data_sets[(k + shift) % len(data_sets)], kinds[k]) for shift in range(len(data_sets)) for k in range(len(kinds))
        ]
        return [(data, kind) for data, kind in turns if fits(kind, data)]

    def _turns(self) -> tuple[str, ...]:
        """Return the architectures as they take turns: the first, which trains fastest, a second time halfway."""
        middle = (len(self.architectures) + 1) // 2
        return (*self.architectures[:middle], *self.architectures[:1], *self.architectures[middle:])

    def host(self, index: int) -> HostSpec:
        """Return host `index`: its data set, architecture and stress follow from the index alone."""
        pairs = self.pairs()
        data, kind = pairs[index % len(pairs)]
        every = round(1 / self.stress_share) if self.stress_share else 0
        return draw_host(self.seed, index, data, kind, stress=bool(every) and index % every == every - 1)

    def sites_of(self, index: int) -> int:
        """Return the number of candidate sites of host `index`, if its network has that many."""
        return min(4, self.sites + (index % 4 == 3) + (index % 8 == 7))

    def grid_of(self, index: int) -> Grid:
        """Return what is tried in a state of host `index`."""
        return Grid(self.replicates_of(index), self.horizons_of(index), self.kernels, self.replicate_cap, self.methods)

    def replicates_of(self, index: int) -> int:
        """Return the replicates of every pair of host `index`; by default two on a fifth of the hosts, to show the noise."""
        return self.replicates or (2 if index % REPLICATED == REPLICATED - 1 else 1)

    def horizons_of(self, index: int) -> tuple[int, ...]:
        """Return the horizons of host `index`: every `long_every`-th host is followed to the long one as well."""
        far = self.long_every and index % self.long_every == self.long_every - 1
        return (*self.horizons, self.long_horizon) if far and self.long_horizon > max(self.horizons) else self.horizons


def target_hosts(plan: RecordPlan) -> int | None:
    """Return how many hosts are asked for; None if only the clock ends the recording."""
    return plan.hosts if plan.hosts is not None or plan.minutes is not None else 12


def describe(plan: RecordPlan, *, already: int = 0) -> list[str]:
    """Return the plan in words, one line each, for the person who waits for it."""
    goal = target_hosts(plan)
    end = "until the clock ends it" if goal is None else f"{goal} hosts"
    clock = f" within {plan.minutes:g} minutes" if plan.minutes is not None else ""
    stress = f"1 in {round(1 / plan.stress_share)}" if plan.stress_share else "none"
    kinds = ", ".join(f"{data}/{kind}" for data, kind in dict.fromkeys(plan.pairs()))
    tried = f"{plan.kernels} fitting kernels" if plan.kernels else "every fitting kernel"
    again = f"{plan.replicates} replicate(s)" if plan.replicates else f"1 replicate, 2 on every {REPLICATED}th host"
    steps, horizons = (", ".join(map(str, values)) for values in (plan.states, plan.horizons))
    return [
        f"recording {end}{clock} of seed {plan.seed} into {plan.exports.name}, {plan.workers} worker(s), {already} done before",
        f"hosts: {kinds}; {stress} under stress",
        f"each: {plan.total_steps} steps, a packet every {plan.every}; at steps {steps} {tried} at "
        f"{plan.sites} to {plan.sites_of(7)} sites, {again}, "
        f"horizons {horizons}",
        f"first, {plan.sheet_hosts} training hosts of their own give the kernels' safety sheets",
    ]
