"""Replaying a feature set's packets one at a time through the online builder."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gnn.encode.build import FeatureSet
from gnn.join.sources import Sources
from schemas.contracts import TABLES

PACKET_TABLES = tuple(name for name, own in TABLES.items() if name.startswith("tolaria.") and own.scope)


def packet_tables(sources: Mapping[str, pa.Table], features: FeatureSet) -> Iterator[dict[str, pa.Table]]:
    """What each packet of `features` brings, in their order: its rows, and the seed states since its run's last packet."""
    tables = Sources(sources)
    before: dict[str, int] = {}
    for row in features.keys().to_pylist():
        run, now = row["training_run_id"], row["timestamp_ns"]
        found = {}
        for name in PACKET_TABLES:
            whole = tables[name]
            keep = np.ones(whole.num_rows, dtype=np.bool_)
            for column in ("training_run_id", "packet_id", "timestamp_ns"):
                keep &= np.asarray(pc.equal(whole.column(column), row[column]).to_numpy(zero_copy_only=False), dtype=np.bool_)
            found[name] = whole.filter(pa.array(keep))
        seeds = tables["kasmina.seed_state"]
        times = seeds.column("timestamp_ns").to_numpy()
        own = np.array(seeds.column("training_run_id").to_pylist(), dtype=object) == run
        found["kasmina.seed_state"] = seeds.filter(pa.array(own & (times <= now) & (times > before.get(run, -(2**62)))))
        before[run] = now
        yield found
