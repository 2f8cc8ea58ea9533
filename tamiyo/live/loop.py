"""Run `make loop`: hosts train and obey the serving bundle, a new bundle learns from the outcomes and takes over.

`python -m tamiyo.live.loop DIR [--hosts N] [--rate R] [--seed S] [--from EXPORTS]` keeps all in one directory, and prints a
figure at the end. It trains two generations of hosts that no bundle was trained on: one for the bundle that is there, one for
the bundle that learned from the first. Everything goes the ordinary way: packets, commands and reports over Oona, landed by the
service, ingested by the pipeline, and the new bundle through its gates.
"""

import argparse
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import urlopen

import pyarrow.compute as pc

from gnn.bundle.promote import CURRENT
from gnn.bundle.read import resolve_once
from lake.settings import SAMPLE
from lake.store.table_store import TableStore
from schemas.configuration import TrainingConfig
from schemas.errors import ServingError
from tamiyo.live import bus
from tamiyo.live.gains import ISSUER, gains
from tamiyo.live.processes import TAMIYO, Children, children, finish, free_port, start_redis, status_of
from tamiyo.terminal import write_line

_PATIENCE_S: Final = 600.0
# the hosts train on the cores that answer them, so an answer has more time than the service's own 45 ms
_SERVING: Final = {"SEGMENT_S": "2", "METADATA_S": "1", "BUDGET_MS": "300"}


@dataclass
class Loop:
    """One trial in `place`, with two generations of `hosts` hosts."""

    place: Path
    exports: Path
    hosts: int
    rate: float
    seed: int
    started: Children
    sessions: list[Mapping[str, Any]] = field(default_factory=list)
    url: str = ""
    pages: str = ""

    @property
    def root(self) -> Path:
        """The exports of the trial: those that it began with, and what it landed."""
        return self.place / "exports"

    def run(self) -> None:
        """Run the whole trial; print the figure."""
        self._prepare()
        self.url, _ = start_redis(self.started, self.place / "redis")
        self._serve()
        for generation in range(2):
            self._record(generation, "--announce")
        self._landed()
        write_line("the pipeline reads what the hosts said of themselves")
        self._pipeline("--no-train")
        self._metadata_since(time.time())
        first = self._serving()
        write_line(f"generation 1 trains under bundle {first[:16]}")
        self.sessions.append(self._record(0, "--obey"))
        self._landed()
        write_line("rebuild and training on what came of it")
        learned = self._pipeline("--train")
        second = resolve_once(self.place / CURRENT).name
        if second != first:
            _until(lambda: self._serving() == second, "the service to take the new bundle")
        write_line(f"generation 2 trains under bundle {second[:16]}" + ("" if second != first else ", the same as before"))
        self.sessions.append(self._record(1, "--obey"))
        self._landed()
        self._pipeline("--no-train")
        self._figure(learned, swapped=second != first)

    def _prepare(self) -> None:
        """Prepare a home with a bundle, and exports of its own beside it."""
        if not self.root.exists():
            shutil.copytree(self.exports, self.root, ignore=shutil.ignore_patterns(".*"))
        if not (self.place / CURRENT).is_symlink():
            write_line(f"{self.place} has no bundle: building one from {self.exports}; this takes some minutes, once")
            self._pipeline("--train")

    def _serve(self) -> None:
        port = str(free_port())
        command = [*TAMIYO, "serve", "--redis", self.url, "--home", str(self.place), "--exports", str(self.root)]
        named = {f"TAMIYO_SERVING_{name}": value for name, value in _SERVING.items()}
        self.started.start([*command, "--port", port], env=named | dict(os.environ))
        self.pages = f"http://127.0.0.1:{port}"
        _until(lambda: self._serving() != "", "the service to load its bundle")

    def _serving(self) -> str:
        """Return the build id that serves, empty if none does yet."""
        try:
            with urlopen(f"{self.pages}/readyz", timeout=30) as answer:
                return str(json.load(answer)["build_id"] or "")
        except HTTPError as error:
            return str(json.load(error)["build_id"] or "")
        except OSError:
            return ""

    def _metadata_since(self, at_s: float) -> None:
        """Wait until the service has read the tables later than `at_s`."""

        def renewed() -> bool:
            with urlopen(f"{self.pages}/metrics", timeout=30) as answer:
                lines = answer.read().decode().splitlines()
            ages = [float(line.split()[1]) for line in lines if line.startswith("tamiyo_metadata_age_seconds ")]
            return bool(ages) and ages[0] < time.time() - at_s

        _until(renewed, "the service to read the tables again")

    def _record(self, generation: int, what: str) -> Mapping[str, Any]:
        """Announce or train one generation of hosts; return what the command printed."""
        command = [*TAMIYO, "record", "--oona", self.url, what, "--exports", str(self.root), "--hosts", str(self.hosts)]
        return self._asked([*command, "--seed", str(self.seed + generation), "--rate", str(self.rate)], (0,))

    def _pipeline(self, train: str) -> Mapping[str, Any]:
        """Run the pipeline; a failed check is reported and stops nothing."""
        found = self._asked([*TAMIYO, "run", train, "--home", str(self.place), "--exports", str(self.root)], (0, 1))
        for step, error in found["failed_steps"].items():
            raise ServingError(f"tamiyo run: expected every step to succeed, found {step}: {error}")
        for check in found["failed_checks"]:
            if check["severity"] == "ERROR":
                write_line(f"  a check failed: {check['asset']} {check['check']}: {check['description']}")
        return found

    def _asked(self, command: Sequence[str], expected: Sequence[int]) -> Mapping[str, Any]:
        output = self.place / "answer.json"
        with output.open("wb") as stream:
            finish(self.started.start([*command, "--json"], output=stream), " ".join(command[3:5]), expected)
        found: Mapping[str, Any] = json.loads(output.read_bytes())
        return found

    def _landed(self) -> None:
        """Wait until all that was sent is landed, and the segments that it went into are exports."""
        oona = bus.Oona(self.url, "loop")
        try:
            _until(lambda: not sum(oona.lag().values()) + oona.pending(), "the service to read everything")
        finally:
            oona.close()
        opened = set(self.root.rglob(".oona-*.tmp"))
        _until(lambda: not opened & set(self.root.rglob(".oona-*.tmp")), "the segments to be closed")

    def _figure(self, learned: Mapping[str, Any], *, swapped: bool) -> None:
        """Print how much the two bundles gained."""
        tables, horizon = TableStore(self.place), TrainingConfig().horizon
        commands, reports = tables.read("tamiyo.command"), tables.read("tamiyo.field_report")
        found = gains(commands, reports, horizon)
        own = pc.filter(commands["command_id"], pc.equal(commands["issued_by"], ISSUER))
        measured = pc.sum(pc.is_in(reports["command_id"], own.combine_chunks())).as_py() or 0
        build = learned["build"]
        reasons = "" if build is None or build["promoted"] else f" ({'; '.join(build['reasons'])})"
        write_line("")
        write_line("The closed loop")
        for generation, session in enumerate(self.sessions, 1):
            counts = {name: count for name, count in session.items() if not isinstance(count, dict)}
            write_line(f"  generation {generation}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
            for name in ("refused", "outcomes"):
                told = ", ".join(f"{count} {reason}" for reason, count in session[name].items()) or "none"
                write_line(f"    {name}: {told}")
        write_line(
            f"  learned: {learned['examples']} examples; {measured} field reports of the policy's own grafts were ingested"
        )
        write_line(f"  hot swap: {'the new bundle took over' if swapped else 'the old bundle stayed' + reasons}")
        for name, gain in found.items():
            write_line(f"  mean gain at {horizon} steps of {'bundle ' + name[:16] if name else 'all grafts'}: {gain}")


def _until(condition: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > ends:
            raise ServingError(f"expected {what} within {_PATIENCE_S:.0f} s, found that it did not; see its log above")
        time.sleep(0.1)


def main(arguments: Sequence[str]) -> int:
    """Run the trial; return exit status 0 after the figure, 130 after Ctrl-C or SIGTERM, 1 if something failed."""
    parser = argparse.ArgumentParser(prog="make loop", description="Close the loop once and print what it was worth.")
    parser.add_argument("place", type=Path)
    parser.add_argument("--from", dest="exports", type=Path, default=SAMPLE, help="exports to begin with")
    parser.add_argument("--hosts", type=int, default=40, help="hosts of each generation")
    parser.add_argument("--rate", type=float, default=10.0, help="packets a second")
    parser.add_argument("--seed", type=int, default=4711, help="seed of the first generation's hosts; the second has the next")
    asked = parser.parse_args(arguments)
    os.environ.setdefault(bus.SECRET, secrets.token_hex(16))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    asked.place.mkdir(parents=True, exist_ok=True)

    def close() -> None:
        with children() as started:
            Loop(asked.place.absolute(), asked.exports, asked.hosts, asked.rate, asked.seed, started).run()

    return status_of(close, "make loop")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
