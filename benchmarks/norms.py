"""Measure what the rolling mean and variance cost: `python -m benchmarks.norms [--observations N] [--json]`.

The vectorized recurrence against the naive loop of the formula, on one thread: seconds for N observations (the loop over a
thousandth of them, scaled), their ratio, and the largest relative difference. Medians of interleaved rounds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gnn.norms.ewma import EwmaState, run_states
from schemas.artifacts import ALPHA

ROUNDS = 5
SHARE = 1_000


def naive(values: NDArray[np.float64], state: EwmaState) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and variances before each observation, as features.md writes the formula."""
    mean, var = state.mean, state.var
    means, variances = np.empty(len(values)), np.empty(len(values))
    for place, value in enumerate(values):
        means[place], variances[place] = mean, var
        jump = value - mean
        mean, var = mean + ALPHA * jump, (1.0 - ALPHA) * (var + ALPHA * jump * jump)
    return means, variances


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--observations", type=int, default=10_000_000, metavar="N")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    size = options.observations
    values = np.random.default_rng(0).lognormal(size=size)
    few, state = values[: max(size // SHARE, 1)], EwmaState.start("loss")
    fast, slow = [], []
    for _ in range(ROUNDS):
        fast.append(seconds(lambda: run_states(values, state)))
        slow.append(seconds(lambda: naive(few, state)) * size / len(few))
    means, variances = naive(few, state)
    trace = run_states(few, state)
    apart = max(np.max(np.abs(trace.mean / means - 1.0)), np.max(np.abs(trace.var / variances - 1.0)))
    quick, loop = statistics.median(fast), statistics.median(slow)
    if options.json:
        print(json.dumps({"observations": size, "s": quick, "loop_s": loop, "ratio": loop / quick, "difference": float(apart)}))
        return
    print(
        f"{size:,} observations: {quick:.2f} CPU s, the loop {loop:.1f} s, {loop / quick:.0f}x; relative difference {apart:.1e}"
    )


if __name__ == "__main__":
    main()
