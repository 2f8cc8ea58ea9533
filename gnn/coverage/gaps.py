"""`coverage.gaps`: what is missing, since when, why, and which system should have sent it."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa

from gnn.coverage.counts import measured_of, per_packet
from gnn.encode.build import Featured, FeatureSet
from gnn.join.nodes import Dangling
from gnn.join.rows import Ints
from schemas.derived.features import GAPS
from schemas.features import Feature, NodeType

_NAMED: Final = 20
_NOBODY_SENT: Final = {"layer": "urza", "activation": "urza", "parameter": "urza", "blueprint": "tolaria", "context": "tolaria"}


def gaps(features: FeatureSet) -> pa.Table:
    """One row a run, key and reason, in order of run. `since_timestamp_ns` is the first packet with that gap.

    Reasons start with `missing`, `placeholder` (a gap of tezzeret), `no elements` or `dangling`. Those about
    elements as a whole (`dangling`, which names the references, and placeholders that no run uses) have a family as key.
    """
    packets = features.block.packets
    rows = [row for featured in features.groups for row in _of_group(features, featured)]
    rows += [row for dangling in _dangling(features) for row in _of_dangling(features, dangling)]
    rows += _unused_placeholders(features)
    order = {run: place for place, run in enumerate(packets.runs)}
    rows.sort(key=lambda row: order[row["training_run_id"]])
    return pa.Table.from_pylist(rows, schema=GAPS)


def _of_group(features: FeatureSet, featured: Featured) -> Iterator[dict[str, Any]]:
    packets, group = features.block.packets, featured.group
    hollow = np.zeros(len(group.packet), dtype=np.bool_) if group.hollow is None else group.hollow
    elements = np.diff(group.ptr)
    empty = _expected_but_empty(features, featured)
    for feature, measured in zip(featured.declaration.features, measured_of(featured), strict=True):
        key = featured.declaration.key(feature)
        lacking = per_packet(~measured & ~hollow, group.ptr)
        mocked = per_packet(~measured & hollow, group.ptr)
        for code, run in enumerate(packets.runs):
            span = slice(int(packets.run_ptr[code]), int(packets.run_ptr[code + 1]))
            total = int(elements[span].sum())
            base = {"training_run_id": run, "key": key, "elements": total}
            times = packets.times[span]
            if lacking[span].any():
                yield base | _gap(feature.system, lacking[span], times, _reason(feature, lacking[span]))
            if mocked[span].any():
                yield base | _gap("tezzeret", mocked[span], times, "placeholder: a guard_tensor stands for the real element")
            if empty[code] is not None:
                reason = f"no elements: this run has no {featured.declaration.family}, and none is invented"
                yield base | {"system": empty[code] or feature.system, "missing": 0, "reason": reason} | _since(times, None)


def _reason(feature: Feature, lacking: Ints) -> str:
    return f"missing: {feature.source}, on {int((lacking > 0).sum())} of {len(lacking)} packets"


def _gap(system: str, missing: Ints, times: Ints, reason: str) -> dict[str, Any]:
    return {"system": system, "missing": int(missing.sum()), "reason": reason} | _since(times, missing)


def _since(times: Ints, missing: Ints | None) -> dict[str, int]:
    first = 0 if missing is None else int(np.flatnonzero(missing)[0])
    return {"since_timestamp_ns": int(times[first])}


def _expected_but_empty(features: FeatureSet, featured: Featured) -> list[str | None]:
    """Per run: None where the node type or relation has elements or need not have any, else the system to ask.

    A run without seeds is no gap, nor is a seed's relation there. Where an end of a relation has no nodes, the system that
    should have sent those is asked; elsewhere Urza, whose graphs hold the links inside a host, or for a seed's relation "",
    which stands for each attribute's own system.
    """
    packets, declaration = features.block.packets, featured.declaration
    counts = _per_run(features, featured.group.ptr)
    if isinstance(declaration, NodeType):
        system = _NOBODY_SENT.get(declaration.name)
        return [None if counts[code] else system for code in range(len(packets.runs))]
    ends = {name: _per_run(features, features.nodes[name].group.ptr) for name in (declaration.source, declaration.target)}
    found: list[str | None] = []
    for code in range(len(packets.runs)):
        lacking = [name for name, nodes in ends.items() if not nodes[code]]
        if counts[code] or "seed" in lacking:
            found.append(None)
        else:
            found.append(_NOBODY_SENT[lacking[0]] if lacking else "" if "seed" in ends else "urza")
    return found


def _unused_placeholders(features: FeatureSet) -> list[dict[str, Any]]:
    """Runs without layers or activations, where Urza's catalogue holds guard tensors in the place of real ones."""
    block, rows = features.block, []
    for name in ("layer", "activation"):
        mocked = int(block.metadata.catalogue.elements[name].placeholder.sum())
        reason = f"placeholder: {mocked} rows of urza.{name} stand for guard tensors, which are no {name}s of a host"
        empty = np.flatnonzero(_per_run(features, features.nodes[name].group.ptr) == 0) if mocked else ()
        for code in empty:
            first = int(block.packets.times[block.packets.run_ptr[code]])
            gap = {"missing": mocked, "elements": mocked, "reason": reason, "since_timestamp_ns": first}
            rows.append({"training_run_id": block.packets.runs[code], "key": f"node.{name}", "system": "tezzeret"} | gap)
    return rows


def _per_run(features: FeatureSet, ptr: Ints) -> Ints:
    return np.asarray(np.diff(ptr[features.block.packets.run_ptr]), dtype=np.int64)


def _dangling(features: FeatureSet) -> list[Dangling]:
    """References of packets, and those inside the graphs of the packets' hosts (once a run)."""
    block = features.block
    first_of = np.unique(np.stack([block.packets.run, block.host]), axis=1, return_index=True)[1]
    found = list(features.dangling)
    for name, links in block.metadata.catalogue.links.items():
        by_host: dict[int, list[str]] = {}
        for code, reference in links.dangling:
            by_host.setdefault(code, []).append(reference)
        named = [(int(packet), n) for packet in first_of for n in by_host.get(int(block.host[packet]), ())]
        if named:
            packet = np.array([packet for packet, _ in named], dtype=np.int64)
            found.append(Dangling(f"edges.{name}", packet, tuple(n for _, n in named)))
    return found + _unknown_blueprints(features)


def _unknown_blueprints(features: FeatureSet) -> list[Dangling]:
    """Blueprints that a packet or a seed names and Urza has no record of."""
    block = features.block
    nodes = block.blueprints
    lost = np.flatnonzero(block.metadata.catalogue.record[nodes.code] < 0)
    names = nodes.names.take(lost).arrow().to_pylist()
    return [Dangling("node.blueprint", nodes.packet[lost], tuple(names))] if len(lost) else []


def _of_dangling(features: FeatureSet, dangling: Dangling) -> Iterator[dict[str, Any]]:
    packets = features.block.packets
    family = next(f for f in features.groups if f.declaration.family == dangling.family)
    for code, run in enumerate(packets.runs):
        own = np.flatnonzero(packets.run[dangling.packet] == code)
        if len(own):
            names = list(dict.fromkeys(dangling.names[int(place)] for place in own))
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            span = slice(int(packets.run_ptr[code]), int(packets.run_ptr[code + 1]))
            yield {
                "training_run_id": run,
                "key": dangling.family,
                "system": "urza",
                "missing": len(own),
                "elements": int(np.diff(family.group.ptr)[span].sum()) + len(own),
                "reason": "dangling: names what the graph lacks: " + ", ".join(names[:_NAMED]) + more,
                "since_timestamp_ns": int(packets.times[dangling.packet[own]].min()),
            }
