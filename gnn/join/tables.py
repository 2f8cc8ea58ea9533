"""Write the `features.*` tables from a join, and read a join back from them.

They have one row per element and packet, in order of packet and `ordinal`: each feature's raw value (NULL if missing) and its
mask (1 measured, 0 missing, NULL not applicable). `features.dangling` holds the references that name nothing.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gnn.join.asof import AsOf
from gnn.join.columns import Columns, Mix, Sets
from gnn.join.edges import Edges
from gnn.join.joined import Group, Joined, TrainingStates
from gnn.join.nodes import Dangling, merge_dangling
from gnn.join.rows import Bools, Ints, Labels, Rows, offsets
from gnn.norms.ewma import EwmaState, EwmaTrace
from schemas.derived.features import DANGLING, DANGLING_TABLE, PACKET, TYPES, feature_schema
from schemas.errors import FeatureError
from schemas.features import CONTEXT, EWMA_METRICS, NODE_TYPES, RELATIONS, Feature, FeatureGroup, Kind, NodeType, Relation


def feature_tables(joined: Joined) -> dict[str, pa.Table]:
    """Return `features.<node type>`, `features.<relation>` and `features.dangling` of every packet, in the packets' order."""
    packets = joined.states.table()
    found = {group.declaration.table: _table(joined, group, packets) for group in joined.groups}
    return found | {DANGLING_TABLE: _dangling_table(joined, packets)}


def _table(joined: Joined, group: Group, packets: pa.Table) -> pa.Table:
    declaration = group.declaration
    own = packets.take(pa.array(group.packet))
    columns = {name: own.column(name) for name, _ in PACKET}
    if isinstance(declaration, NodeType):
        columns["element_id"] = _names(joined, declaration.name)
    elif group.edges is not None:
        for end, node_type, number in (
            ("source", declaration.source, group.edges.source),
            ("target", declaration.target, group.edges.target),
        ):
            columns[f"{end}_id"] = _names(joined, node_type).take(pa.array(number))
            columns[f"{end}_ordinal"] = _within(number, joined.nodes[node_type].ptr, group.packet)
    columns["ordinal"] = _within(np.arange(group.size), group.ptr, group.packet)
    columns["placeholder"] = pa.array(group.placeholder)
    if declaration is CONTEXT:
        columns |= _state_columns(joined)
    for feature in declaration.features:
        columns |= _feature_columns(group.columns, feature)
    schema = feature_schema(declaration)
    return pa.table([columns[field.name] for field in schema], schema=schema)


def _names(joined: Joined, node_type: str) -> pa.Array:
    labels = joined.nodes[node_type].names
    return pa.nulls(0, pa.string()) if labels is None else labels.arrow()


def _within(numbers: Ints, ptr: Ints, packet: Ints) -> pa.Array:
    """Renumber elements that are counted through all packets, so that each packet's start at 0."""
    return pa.array((numbers - ptr[packet]).astype(np.int32))


def _state_columns(joined: Joined) -> dict[str, pa.Array]:
    """Return the other columns of `features.context`: host, order among equal times, EWMA states before the packet."""
    states = joined.states
    everyone = np.arange(states.size)
    fresh = np.ones(states.size, dtype=np.bool_)
    fresh[1:] = (np.diff(states.run) != 0) | (np.diff(states.times) != 0)
    first = np.maximum.accumulate(np.where(fresh, everyone, 0))
    found = {"host_blueprint_id": states.hosts.arrow(), "packet_order": pa.array((everyone - first).astype(np.int32))}
    for metric, trace in joined.traces.items():
        found |= {f"{metric}__mean": pa.array(trace.mean), f"{metric}__var": pa.array(trace.var)}
        found[f"{metric}__count"] = pa.array(trace.count)
    return found


def _feature_columns(raw: Columns, feature: Feature) -> dict[str, pa.Array]:
    measured, inapplicable = raw.measured(feature), raw.inapplicable.get(feature.name)
    if feature.kind is Kind.CATEGORICAL:
        values = raw.labels[feature.name].arrow()
    elif feature.kind is Kind.MULTI_HOT:
        values = raw.sets[feature.name].arrow()
    elif feature.kind is Kind.SHARE:
        values = raw.shares[feature.name].arrow()
    else:
        number = raw.numbers[feature.name]
        values = pa.array(number != 0.0 if feature.kind is Kind.FLAG else number, TYPES[feature.kind], mask=~measured)
    return {feature.name: values, f"{feature.name}__mask": pa.array(measured.astype(np.int8), pa.int8(), mask=inapplicable)}


def _dangling_table(joined: Joined, packets: pa.Table) -> pa.Table:
    parts = [DANGLING.empty_table()]
    for dangling in joined.dangling:
        own = packets.take(pa.array(dangling.packet))
        count = len(dangling.packet)
        columns = [own.column(name) for name, _ in PACKET]
        columns += [pa.array([dangling.family] * count), pa.array(list(dangling.names), pa.string())]
        parts.append(pa.table([*columns, pa.array([dangling.placeholders] * count, pa.int64())], schema=DANGLING))
    return pa.concat_tables(parts).combine_chunks()


def value_columns(group: NodeType | Relation) -> list[str]:
    """Return the columns of a group's feature table that `join_of` reads: all but masks and the ids of an edge's ends."""
    left_out = {"source_id", "target_id"} | {f"{feature.name}__mask" for feature in group.features}
    return [name for name in feature_schema(group).names if name not in left_out]


def join_of(tables: Mapping[str, pa.Table]) -> Joined:
    """Return the join that feature tables were written from; it reads only their `value_columns`.

    The tables hold all rows of any number of training runs, in any order; `features.dangling` may be absent.
    Raises FeatureError if an element's packet is not in `features.context`.
    """
    packets = PacketIndex(tables[CONTEXT.table])
    size = packets.states.size
    nodes = {node.name: _node_group(node, size, *packets.placed(tables[node.table])) for node in NODE_TYPES}
    edges = {r.short: _edge_group(r, nodes, size, *packets.placed(tables[r.table])) for r in RELATIONS}
    dangling = tables.get(DANGLING_TABLE)
    return Joined(packets.states, packets.traces(), nodes, edges, () if dangling is None else packets.dangling(dangling))


_PACKET: Final = [name for name, _ in PACKET]


def _changes(rows: Rows) -> Ints:
    """Return the first row (int64 [s]) of each group of successive rows of one packet."""
    times = rows.times("timestamp_ns")
    fresh = np.ones(rows.size, dtype=np.bool_)
    fresh[1:] = times[1:] != times[:-1]
    for name in ("training_run_id", "packet_id"):
        ids = rows.array(name)
        if ids is not None and len(ids):
            fresh[1:] |= pc.not_equal(ids[1:], ids[:-1]).fill_null(True).to_numpy(zero_copy_only=False)
    return np.flatnonzero(fresh)


class PacketIndex:
    """The packets of `features.context` in order; finds the packet of each row of another feature table."""

    def __init__(self, context: pa.Table) -> None:
        """Sort and index the packets of `context`."""
        rows = Rows(context)
        labels, times = rows.labels("training_run_id"), rows.times("timestamp_ns")
        runs = tuple(sorted(labels.words))
        run = labels.translate({word: code for code, word in enumerate(runs)})[:-1]
        order = np.lexsort((rows.times("packet_order"), times, run))
        if not np.array_equal(order, np.arange(rows.size)):
            rows, run, times = Rows(context.take(pa.array(order))), run[order], times[order]
        self._rows = rows
        ids = rows.labels("packet_id")
        run_ptr = np.searchsorted(run, np.arange(len(runs) + 1))
        hosts = rows.labels("host_blueprint_id") if "host_blueprint_id" in context.column_names else ids
        everyone = np.arange(rows.size)
        self.states = TrainingStates(runs, run, run_ptr, times, ids.take(everyone), hosts.take(everyone))
        self._codes_of = {word: code for code, word in enumerate(runs)}, {word: code for code, word in enumerate(ids.words)}
        self._span = len(ids.words) + 1
        self._index = AsOf(run * self._span + ids.codes[:-1], times)

    def traces(self) -> dict[str, EwmaTrace]:
        """Return the EWMA state of each metric before each packet."""
        return {
            metric: EwmaTrace(
                self._rows.numbers(f"{metric}__mean")[:-1],
                self._rows.numbers(f"{metric}__var")[:-1],
                self._rows.times(f"{metric}__count"),
                EwmaState.start(metric),
            )
            for metric in EWMA_METRICS
        }

    def locate(self, rows: Rows) -> Ints:
        """Return the packet number (int64 [n]) of each row.

        Raises FeatureError, which names the packet of the first row that is not there.
        """
        # rows of one packet are mostly adjacent: one lookup per group of them
        first = _changes(rows)
        heads = rows if len(first) == rows.size else Rows(rows.table.select(_PACKET).take(pa.array(first)))
        runs, ids = heads.labels("training_run_id"), heads.labels("packet_id")
        run, packet = (labels.translate(codes)[:-1] for labels, codes in zip((runs, ids), self._codes_of, strict=True))
        group = np.where((run >= 0) & (packet >= 0), run * self._span + packet, -1)
        found = self._index.exact(group, heads.times("timestamp_ns"))
        if len(found) and found.min() < 0:
            lost = heads.table.slice(int(np.argmin(found)), 1).select(_PACKET).to_pylist()[0]
            raise FeatureError(
                f"feature tables: expected a row of {CONTEXT.table} for {lost}, found none; materialize them again"
            )
        return found.repeat(np.diff(first, append=rows.size))

    def placed(self, table: pa.Table) -> tuple[Rows, Ints]:
        """Return the rows in order of packet and `ordinal`, and the packet number (int64 [n]) of each."""
        rows = Rows(table)
        packet, ordinal = self.locate(rows), rows.times("ordinal")
        place = packet * (int(ordinal.max(initial=0)) + 1) + ordinal
        if (place[1:] < place[:-1]).any():
            order = np.argsort(place, kind="stable")
            return Rows(table.take(pa.array(order))), packet[order]
        return rows, packet

    def dangling(self, table: pa.Table) -> tuple[Dangling, ...]:
        """Return the references of `features.dangling`, one object per family and kind."""
        rows = Rows(table)
        packet, names = self.locate(rows), table.column("reference").to_pylist()
        families, counts = table.column("family").to_pylist(), rows.times("placeholders").tolist()
        found = zip(families, packet, names, counts, strict=True)
        return merge_dangling(Dangling(family, np.array([at]), (name,), count) for family, at, name, count in found)


def _columns(group: FeatureGroup, rows: Rows) -> Columns:
    numbers, labels, sets, shares = {}, {}, {}, {}
    for feature in group.features:
        if feature.kind is Kind.CATEGORICAL:
            labels[feature.name] = _labels(rows, feature.name)
        elif feature.kind is Kind.MULTI_HOT:
            sets[feature.name] = Sets(rows, feature.name, np.arange(rows.size), own=True)
        elif feature.kind is Kind.SHARE:
            lists = rows.lists(feature.name)
            shares[feature.name] = Mix(lists.items, lists.ptr[:-1])
        else:
            numbers[feature.name] = rows.numbers(feature.name)[:-1]
    return Columns(rows.size, numbers, labels, sets, shares=shares)


def _labels(rows: Rows, name: str) -> Labels:
    """Return the labels of a column, [N]."""
    labels = rows.labels(name)
    return Labels(labels.codes[:-1], labels.words)


def _flags(rows: Rows, name: str) -> Bools:
    column = rows.array(name)
    return np.zeros(rows.size, dtype=np.bool_) if column is None else np.asarray(column.to_numpy(zero_copy_only=False))


def _ptr(packet: Ints, size: int) -> Ints:
    return offsets(np.bincount(packet, minlength=size).astype(np.int64))


def _node_group(node: NodeType, size: int, rows: Rows, packet: Ints) -> Group:
    return Group(
        node, _columns(node, rows), packet, _ptr(packet, size), _flags(rows, "placeholder"), _labels(rows, "element_id")
    )


def _edge_group(relation: Relation, nodes: Mapping[str, Group], size: int, rows: Rows, packet: Ints) -> Group:
    ptr = _ptr(packet, size)
    source = nodes[relation.source].ptr[packet] + rows.times("source_ordinal")
    target = nodes[relation.target].ptr[packet] + rows.times("target_ordinal")
    edges = Edges(packet, source, target, ptr, {})
    return Group(relation, _columns(relation, rows), packet, ptr, _flags(rows, "placeholder"), edges=edges)
