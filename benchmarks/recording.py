"""Measure how many hosts a CPU minute a recording reaches with the default grid: `python -m benchmarks.recording [--hosts N]`.

It records hosts in this process, as a worker does, and prints CPU time by architecture and the share of trials. It leaves out
the first phase, which a recording goes through once, and the first host of a process, which brings torch's compiler in.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recorder.exports import Records
from recorder.runs import hostrun
from recorder.runs.grid import try_everything
from recorder.runs.plan import RecordPlan
from recorder.runs.record import files_of, prepare, record_one

WARM = 3  # a host that trains quickly


def timed(function: Callable[..., Any], costs: list[float]) -> Callable[..., Any]:
    """Return the function with the CPU seconds of its calls added to the end of `costs`."""

    def measured(*args: Any, **kwargs: Any) -> Any:
        started = time.process_time()
        result = function(*args, **kwargs)
        costs.append(time.process_time() - started)
        return result

    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=24, help="24 hold every architecture on every data set once")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    prepare()
    plan = RecordPlan(exports=Path("unused"), seed=arguments.seed, hosts=arguments.hosts)
    record_one(plan, WARM, {})
    trials: list[float] = []
    vars(hostrun)["try_everything"] = timed(try_everything, trials)
    costs: dict[str, list[float]] = defaultdict(list)
    whole: list[float] = []

    def record_and_write(index: int) -> None:
        records: Records = record_one(plan, index, {})
        files_of(plan, "hosts", records)

    for index in range(arguments.hosts):
        timed(record_and_write, whole)(index)
        costs[plan.host(index).architecture].append(whole[-1])
    for kind, seconds in sorted(costs.items()):
        print(f"{kind:12s} {sum(seconds) / len(seconds):6.2f} CPU s a host ({len(seconds)} hosts)")
    print(f"{60 * len(whole) / sum(whole):.1f} hosts a CPU minute; {sum(trials) / sum(whole):.0%} of it trials")


if __name__ == "__main__":
    main()
