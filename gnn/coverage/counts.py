"""Count measured elements per coverage key, per graph and per training run.

The counts come from the masks of the `features.*` tables, or from a join that was not stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from gnn.encode.build import FeatureSet
from gnn.join.joined import Group, Joined, TrainingStates
from gnn.join.rows import Bools, Ints, offsets
from gnn.join.tables import PacketIndex
from schemas.derived.features import BY_FAMILY, BY_KEY, PACKET
from schemas.errors import FeatureError
from schemas.features import GROUPS, NodeType, Relation

_SUMMED: Final = ("key", "measured_sum", "elements_sum")
_KEYS: Final = tuple((group, feature) for group in GROUPS for feature in group.features)


@dataclass(frozen=True)
class Marks:
    """Which of N elements of a node type or relation are measured, ordered by packet.

    `ptr` int64 [P + 1] bounds each packet's elements. `measured` and `applicable` bool [features, N] are in declared order;
    an element that is measured is also applicable.
    """

    declaration: NodeType | Relation
    ptr: Ints
    placeholder: Bools
    measured: Bools
    applicable: Bools

    @classmethod
    def of(cls, group: Group) -> "Marks":
        """Return the marks of a joined group."""
        features, columns = group.declaration.features, group.columns
        measured = columns.all_measured(group.declaration)
        applicable = np.ones((len(features), group.size), dtype=np.bool_)
        for place, feature in enumerate(features):
            if feature.name in columns.inapplicable:
                applicable[place] = columns.applicable(feature)
        return cls(group.declaration, group.ptr, group.placeholder, measured, applicable)


@dataclass(frozen=True)
class Counts:
    """Per packet: `measured` int64 [keys, P] and `elements` int64 [keys, P], keys in declared order."""

    measured: Ints
    elements: Ints


def marks_of(joined: Joined) -> list[Marks]:
    """Return the marks of every node type and relation, in declared order."""
    return [Marks.of(group) for group in joined.groups]


def mask_columns(group: NodeType | Relation) -> list[str]:
    """Return the names of the columns that `marks_in` reads of a group's feature table."""
    packet = [name for name, _ in PACKET]
    return [*packet, "ordinal", "placeholder", *(f"{feature.name}__mask" for feature in group.features)]


def marks_in(packets: PacketIndex, tables: Mapping[str, pa.Table]) -> list[Marks]:
    """Return the marks of every node type and relation from feature tables by name; only `mask_columns` are read."""
    return [_read(packets, group, tables[group.table]) for group in GROUPS]


def _read(packets: PacketIndex, group: NodeType | Relation, table: pa.Table) -> Marks:
    rows, packet = packets.placed(table)
    ptr = offsets(np.bincount(packet, minlength=packets.states.size).astype(np.int64))
    masks = np.empty((len(group.features), rows.size), dtype=np.int8)
    for place, feature in enumerate(group.features):
        masks[place] = rows.table.column(f"{feature.name}__mask").fill_null(-1).to_numpy()
    placeholder = np.asarray(rows.table.column("placeholder").to_numpy(), dtype=np.bool_)
    return Marks(group, ptr, placeholder, masks == 1, masks >= 0)


def per_packet(marks: Bools, ptr: Ints) -> Ints:
    """Count the marked elements of each packet: int64 [..., P] from bool [..., N]."""
    if len(ptr) == 2:
        return np.asarray(marks[..., ptr[0] : ptr[1]].sum(axis=-1, dtype=np.int64))[..., np.newaxis]
    total = np.zeros((*marks.shape[:-1], marks.shape[-1] + 1), dtype=np.int64)
    np.cumsum(marks, axis=-1, dtype=np.int64, out=total[..., 1:])
    return np.asarray(total[..., ptr[1:]] - total[..., ptr[:-1]], dtype=np.int64)


def count(marks: Sequence[Marks]) -> Counts:
    """Count the measured elements and all elements of every packet, by key."""
    measured = [per_packet(group.measured, group.ptr) for group in marks]
    elements = [per_packet(group.applicable, group.ptr) for group in marks]
    return Counts(np.concatenate(measured), np.concatenate(elements))


def _ratio(measured: Ints, elements: Ints) -> pa.Array:
    empty = elements == 0
    return pa.array(measured / np.where(empty, 1, elements), pa.float64(), mask=empty)


def by_key(states: TrainingStates, marks: Sequence[Marks]) -> pa.Table:
    """Build `coverage.by_key`: one row per run and key, in order of run and declaration; the ratio is NULL without elements."""
    if not states.runs:
        return BY_KEY.empty_table()
    measured = np.concatenate([per_packet(g.measured, g.ptr[states.run_ptr]) for g in marks]).T.ravel()
    elements = np.concatenate([per_packet(g.applicable, g.ptr[states.run_ptr]) for g in marks]).T.ravel()
    runs = len(states.runs)
    return pa.table(
        [
            pa.array(np.repeat(np.array(states.runs, dtype=object), len(_KEYS)), pa.string()),
            pa.array([group.key(feature) for group, feature in _KEYS] * runs, pa.string()),
            pa.array([group.family for group, _ in _KEYS] * runs, pa.string()),
            pa.array([feature.system for _, feature in _KEYS] * runs, pa.string()),
            pa.array([feature.mandatory for _, feature in _KEYS] * runs, pa.bool_()),
            pa.array(measured, pa.int64()),
            pa.array(elements, pa.int64()),
            _ratio(measured, elements),
        ],
        schema=BY_KEY,
    )


def by_family(keys: pa.Table) -> pa.Table:
    """Build `coverage.by_family` from rows of `coverage.by_key`, with the counts of each family's keys added up."""
    names = ["training_run_id", "family"]
    total = keys.group_by(names, use_threads=False).aggregate([("measured", "sum"), ("elements", "sum")])
    measured, elements = total["measured_sum"], total["elements_sum"]
    columns = [*(total[name] for name in names), measured, elements, _ratio(measured.to_numpy(), elements.to_numpy())]
    return pa.table(columns, schema=BY_FAMILY)


def unbalanced(keys: pa.Table, gaps: pa.Table) -> list[str]:
    """Return runs and keys of `coverage.by_key` whose measured elements and gaps do not add up to all elements."""
    names = ["training_run_id", "key"]
    lacking = gaps.group_by(names, use_threads=False).aggregate([("missing", "sum")])
    joined = keys.select([*names, "measured", "elements"]).join(lacking, names, join_type="left outer")
    missing = joined.column("missing_sum").fill_null(0).to_numpy()
    measured, elements = joined.column("measured").to_numpy(), joined.column("elements").to_numpy()
    wrong = np.flatnonzero((measured + missing != elements) | (measured < 0))
    rows = joined.take(pa.array(wrong)).to_pylist()
    return [
        f"{row['training_run_id']}, {row['key']}: {row['measured']} measured and {row['missing_sum'] or 0} missing "
        f"of {row['elements']} elements"
        for row in rows
    ]


def check_conservation(sums: Mapping[str, int], keys: pa.Table) -> None:
    """Check that the measured counts of `keys` (coverage.by_key) equal `sums` of the tensors' masks, and are within elements.

    Raises FeatureError, which names every key that differs.
    """
    total = keys.group_by("key", use_threads=False).aggregate([("measured", "sum"), ("elements", "sum")])
    faults = []
    for key, measured, elements in zip(*(total.column(name).to_pylist() for name in _SUMMED), strict=True):
        if measured != sums.get(key, 0) or not 0 <= measured <= elements:
            faults.append(f"{key}: {measured} measured of {elements} elements, masks sum to {sums.get(key, 0)}")
    if faults:
        raise FeatureError("coverage and masks differ: " + "; ".join(faults) + ". Materialize features and coverage again.")


def mask_sums(features: FeatureSet) -> dict[str, int]:
    """Return the sum of each key's mask channel in `x`, or for a categorical the number of its ids that are not 0."""
    sums = {}
    for featured in features.groups:
        group, x = featured.declaration, featured.encoded.x
        masks = {f.name: x[:, group.value_width + place] for place, f in enumerate(group.valued)}
        ids = {f.name: featured.encoded.ids[:, place] != 0 for place, f in enumerate(group.categorical)}
        for feature in group.features:
            sums[group.key(feature)] = int((masks | ids)[feature.name].sum(dtype=np.float64))
    return sums
