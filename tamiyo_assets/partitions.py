"""The one partition dimension: training runs, found in the exports. No asset or job is declared here."""

from typing import Final

import dagster as dg

TRAINING_RUNS: Final = "training_runs"

training_runs = dg.DynamicPartitionsDefinition(name=TRAINING_RUNS)

# A partition as a run of its own costs seconds of overhead: all requested partitions go into one run.
SINGLE_RUN: Final = dg.BackfillPolicy.single_run()

RANGE_START: Final = "dagster/asset_partition_range_start"
RANGE_END: Final = "dagster/asset_partition_range_end"


def range_tags(ordered: list[str], touched: set[str]) -> dict[str, str]:
    """Run tags that select the stretch of partitions from the first touched one to the last, in insertion order.

    A stretch may hold untouched partitions too: they are reported again with the digest that they had.
    """
    hit = [key for key in ordered if key in touched]
    return {RANGE_START: hit[0], RANGE_END: hit[-1]} if hit else {}
