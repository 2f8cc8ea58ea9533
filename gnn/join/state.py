"""Keep what the builder must remember of a training run between packets: EWMA states, losses, seed states.

It is plain data that can be saved as bytes and restored, and is never changed in place.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from gnn.norms.ewma import EwmaState
from schemas.contracts import TABLES
from schemas.errors import FeatureError
from schemas.features import EWMA_METRICS

SEED_TABLE: Final = "kasmina.seed_state"
_FORMAT: Final = 2


def _fresh() -> dict[str, EwmaState]:
    return {metric: EwmaState.start(metric) for metric in EWMA_METRICS}


@dataclass(frozen=True)
class RunState:
    """State of one run: EWMA states by metric, and the seed rows (kasmina.seed_state) that a later packet may still need.

    `losses` are those of its newest packet by name; a loss that the packet did not measure is absent. `seed_times` holds the
    newest time of each seed among those rows, if it is known.
    """

    ewma: Mapping[str, EwmaState] = field(default_factory=_fresh)
    seeds: pa.Table = field(default_factory=TABLES[SEED_TABLE].empty)
    losses: Mapping[str, float] = field(default_factory=dict)
    seed_times: Mapping[str, int] | None = field(default=None, compare=False)


States = Mapping[str, RunState]


def save_states(states: States) -> bytes:
    """Return the states as JSON with base64-encoded Arrow IPC streams; `restore_states` reads them back bit for bit."""
    runs = {
        run: {
            "ewma": {m: [s.mean.hex(), s.var.hex(), s.count] for m, s in state.ewma.items()},
            "losses": {name: value.hex() for name, value in sorted(state.losses.items())},
            "seeds": base64.b64encode(_stream(state.seeds)).decode("ascii"),
        }
        for run, state in sorted(states.items())
    }
    return json.dumps({"format": _FORMAT, "runs": runs}, sort_keys=True).encode("ascii")


def restore_states(saved: bytes) -> dict[str, RunState]:
    """Return the states in bytes of `save_states`. Raises FeatureError if they are damaged or of another format."""
    try:
        whole = json.loads(saved)
        if whole["format"] != _FORMAT:
            raise FeatureError(f"saved run states: expected format {_FORMAT}, found {whole['format']!r}; start the runs afresh")
        return {run: _restore(state) for run, state in whole["runs"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise FeatureError(f"saved run states are damaged ({error}); expected what save_states wrote, start afresh") from error


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _restore(state: Mapping[str, object]) -> RunState:
    ewma, losses, seeds = state["ewma"], state["losses"], state["seeds"]
    if not isinstance(ewma, dict) or not isinstance(losses, dict) or not isinstance(seeds, str):
        raise ValueError("a run without its ewma, losses or seeds")
    metrics = {m: EwmaState(float.fromhex(s[0]), float.fromhex(s[1]), int(s[2])) for m, s in ewma.items()}
    if set(metrics) != set(EWMA_METRICS):
        raise ValueError(f"metrics {sorted(metrics)} where {sorted(EWMA_METRICS)} belong")
    with pa.ipc.open_stream(base64.b64decode(seeds, validate=True)) as reader:
        return RunState(metrics, reader.read_all(), {name: float.fromhex(value) for name, value in losses.items()})
