"""Build `coverage.gaps`: what is missing, since when, why, and which system should have sent it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from gnn.coverage.counts import Marks, per_packet
from gnn.join.joined import TrainingStates
from gnn.join.nodes import Dangling
from gnn.join.rows import Ints
from schemas.derived.features import GAPS
from schemas.features import Feature, NodeType

_NAMED: Final = 20
_PLACEHOLDER: Final = "placeholder: a guard_tensor stands for the real element"
_NOBODY_SENT: Final = {"layer": "urza", "activation": "urza", "parameter": "urza", "blueprint": "tolaria", "context": "tolaria"}


def gaps(states: TrainingStates, marks: Sequence[Marks], dangling: Iterable[Dangling]) -> pa.Table:
    """Return one row per run, key and reason, in order of run; `since_timestamp_ns` is the first packet with that gap.

    Reasons start with `missing`, `placeholder` (a gap of tezzeret), `no elements` or `dangling`. The key is a family if the
    reason is about whole elements: `dangling`, which names the references, and placeholders that no run uses.
    """
    found = _Gaps(states, {group.declaration.family: group for group in marks})
    rows = [row for group in marks for row in found.of_group(group)]
    rows += [row for one in dangling for row in found.of_dangling(one)]
    order = {run: place for place, run in enumerate(states.runs)}
    rows.sort(key=lambda row: order[row["training_run_id"]])
    return pa.Table.from_pylist(rows, schema=GAPS)


class _Gaps:
    """Gaps of some training states, group by group; `marks` by family."""

    def __init__(self, states: TrainingStates, marks: Mapping[str, Marks]) -> None:
        self._states, self._marks = states, marks

    def of_group(self, group: Marks) -> Iterator[dict[str, Any]]:
        states, ptr = self._states, group.ptr
        missing = group.applicable & ~group.measured
        lacking, mocked = per_packet(missing & ~group.placeholder, ptr), per_packet(missing & group.placeholder, ptr)
        elements = per_packet(group.applicable, ptr[states.run_ptr])
        empty = self._expected_but_empty(group)
        for place, feature in enumerate(group.declaration.features):
            key = group.declaration.key(feature)
            for code, run in enumerate(states.runs):
                span = slice(int(states.run_ptr[code]), int(states.run_ptr[code + 1]))
                base = {"training_run_id": run, "key": key, "elements": int(elements[place, code])}
                times, own, placeholders = states.times[span], lacking[place, span], mocked[place, span]
                if own.any():
                    yield base | _gap(feature.system, own, times, _reason(feature, own))
                if placeholders.any():
                    yield base | _gap("tezzeret", placeholders, times, _PLACEHOLDER)
                if empty[code] is not None:
                    reason = f"no elements: this run has no {group.declaration.family}"
                    yield base | {"system": empty[code] or feature.system, "missing": 0, "reason": reason} | _since(times, None)

    def _per_run(self, family: str) -> Ints:
        """Return the number of elements of each run: int64 [R]."""
        return np.asarray(np.diff(self._marks[family].ptr[self._states.run_ptr]), dtype=np.int64)

    def _expected_but_empty(self, group: Marks) -> list[str | None]:
        """Return the system to ask for each run; None if the node type or relation has elements or need not have any.

        A run without seeds is not a gap, nor are its missing seed relations. If one end of a relation has no nodes, ask the
        system that should have sent those. Else ask Urza, whose graphs hold the links inside a host; for a relation of seeds
        the result is "", which stands for each attribute's own system.
        """
        declaration, runs = group.declaration, range(len(self._states.runs))
        counts = self._per_run(declaration.family)
        if isinstance(declaration, NodeType):
            system = _NOBODY_SENT.get(declaration.name)
            return [None if counts[code] else system for code in runs]
        ends = {name: self._per_run(f"node.{name}") for name in (declaration.source, declaration.target)}
        found: list[str | None] = []
        for code in runs:
            lacking = [name for name, nodes in ends.items() if not nodes[code]]
            if counts[code] or "seed" in lacking:
                found.append(None)
            else:
                found.append(_NOBODY_SENT[lacking[0]] if lacking else "" if "seed" in ends else "urza")
        return found

    def of_dangling(self, dangling: Dangling) -> Iterator[dict[str, Any]]:
        states, run = self._states, self._states.run[dangling.packet]
        elements = self._per_run(dangling.family)
        for code in np.unique(run).tolist():
            own = np.flatnonzero(run == code)
            names = list(dict.fromkeys(dangling.names[int(place)] for place in own))
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            base = {"training_run_id": states.runs[code], "key": dangling.family}
            since = {"since_timestamp_ns": int(states.times[dangling.packet[own]].min())}
            if dangling.placeholders:
                count = dangling.placeholders
                reason = {"system": "tezzeret", "reason": f"placeholder: {names[0]}", "missing": count, "elements": count}
            else:
                listed = "dangling: names what the graph lacks: " + ", ".join(names[:_NAMED]) + more
                reason = {"system": "urza", "reason": listed, "missing": len(own), "elements": int(elements[code]) + len(own)}
            yield base | reason | since


def _reason(feature: Feature, lacking: Ints) -> str:
    return f"missing: {feature.origin}, on {int((lacking > 0).sum())} of {len(lacking)} packets"


def _gap(system: str, missing: Ints, times: Ints, reason: str) -> dict[str, Any]:
    return {"system": system, "missing": int(missing.sum()), "reason": reason} | _since(times, missing)


def _since(times: Ints, missing: Ints | None) -> dict[str, int]:
    first = 0 if missing is None else int(np.flatnonzero(missing)[0])
    return {"since_timestamp_ns": int(times[first])}
