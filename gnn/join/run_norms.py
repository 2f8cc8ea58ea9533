"""Compute the table `norms.ewma`: the EWMA states after each training run's packets."""

import numpy as np
import pyarrow as pa

from gnn.join.packets import Packets
from gnn.norms.ewma import EwmaState, run_states
from schemas.derived.features import EWMA
from schemas.features import EWMA_METRICS


def run_norms(states: pa.Table) -> pa.Table:
    """Return one row per run and metric of `states` (tolaria.system_state); each run's recurrence starts at the priors."""
    packets = Packets(states)
    rows = []
    for metric in EWMA_METRICS:
        values = packets.rows.numbers(metric)[:-1]
        for number, run in enumerate(packets.runs):
            span = slice(int(packets.run_ptr[number]), int(packets.run_ptr[number + 1]))
            final = run_states(values[span], EwmaState.start(metric)).final
            seen = packets.times[span][np.isfinite(values[span])]
            newest = int(seen[-1]) if len(seen) else None
            rows.append((run, metric, final.mean, final.var, final.count, newest))
    columns = list(zip(*rows, strict=True)) or [()] * len(EWMA)
    return pa.table([pa.array(list(c), f.type) for c, f in zip(columns, EWMA, strict=True)], schema=EWMA)
