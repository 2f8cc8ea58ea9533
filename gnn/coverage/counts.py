"""Coverage: for each key, measured elements of all elements, per graph and per run, counted from the tensors' own masks."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from gnn.encode.build import Featured, FeatureSet
from gnn.encode.encoding import LAYOUTS
from gnn.join.rows import Bools, Ints
from schemas.derived.features import BY_FAMILY, BY_KEY
from schemas.errors import FeatureError
from schemas.features import GROUPS, Kind

_KEYS: Final = tuple((group, feature) for group in GROUPS for feature in group.features)


@dataclass(frozen=True)
class Counts:
    """Per packet: `measured` int64 [keys, P] and `elements` int64 [keys, P], keys in declared order."""

    measured: Ints
    elements: Ints


def measured_of(featured: Featured) -> list[Bools]:
    """Per feature in declared order, which elements (bool [N]) are measured, as the tensors' masks and ids say."""
    layout, categories = LAYOUTS[featured.declaration.family], iter(featured.encoded.ids.T)
    found = []
    for feature in featured.declaration.features:
        if feature.kind is Kind.CATEGORICAL:
            found.append(next(categories) != 0)
        elif feature.kind is Kind.MULTI_HOT:
            found.append(featured.group.columns.sets[feature.name].known)
        else:
            found.append(featured.encoded.measured[layout.place[feature.name]])
    return found


def per_packet(marks: Bools, ptr: Ints) -> Ints:
    """int64 [P]: how many of each packet's elements are marked."""
    total = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(marks, dtype=np.int64)])
    return np.asarray(total[ptr[1:]] - total[ptr[:-1]], dtype=np.int64)


def count(features: FeatureSet) -> Counts:
    """Counts of every packet."""
    measured, elements = [], []
    for featured in features.groups:
        ptr = featured.group.ptr
        for marks in measured_of(featured):
            measured.append(per_packet(marks, ptr))
            elements.append(np.diff(ptr))
    return Counts(np.stack(measured), np.stack(elements))


def _ratio(measured: Ints, elements: Ints) -> pa.Array:
    empty = elements == 0
    return pa.array(measured / np.where(empty, 1, elements), pa.float64(), mask=empty)


def by_key(features: FeatureSet) -> pa.Table:
    """`coverage.by_key`: one row a run and key, in order of run and declaration; no ratio where there are no elements."""
    counts, block = count(features), features.block.packets
    if not block.runs:
        return BY_KEY.empty_table()
    starts = block.run_ptr[:-1]
    measured = np.add.reduceat(counts.measured, starts, axis=1).T.ravel()
    elements = np.add.reduceat(counts.elements, starts, axis=1).T.ravel()
    runs = len(block.runs)
    return pa.table(
        [
            pa.array(np.repeat(np.array(block.runs, dtype=object), len(_KEYS)), pa.string()),
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
    """`coverage.by_family` from rows of `coverage.by_key`: counts-weighted over each family's keys."""
    names = ["training_run_id", "family"]
    total = keys.group_by(names, use_threads=False).aggregate([("measured", "sum"), ("elements", "sum")])
    measured, elements = total["measured_sum"], total["elements_sum"]
    columns = [*(total[name] for name in names), measured, elements, _ratio(measured.to_numpy(), elements.to_numpy())]
    return pa.table(columns, schema=BY_FAMILY)


def add_up(parts: Iterable[pa.Table]) -> pa.Table:
    """`coverage.by_key` of several blocks: counts of one run and key added, in order of run and declaration."""
    rows = pa.concat_tables([BY_KEY.empty_table(), *parts])
    names = ["training_run_id", "key", "family", "system", "mandatory"]
    total = rows.group_by(names, use_threads=False).aggregate([("measured", "sum"), ("elements", "sum")])
    place = {group.key(feature): index for index, (group, feature) in enumerate(_KEYS)}
    order = np.lexsort(
        (
            np.array([place[key] for key in total["key"].to_pylist()], dtype=np.int64),
            np.array(total["training_run_id"].to_pylist(), dtype=object),
        )
    )
    total = total.take(pa.array(order, pa.int64()))
    measured, elements = total["measured_sum"], total["elements_sum"]
    columns = [*(total[name] for name in names), measured, elements, _ratio(measured.to_numpy(), elements.to_numpy())]
    return pa.table(columns, schema=BY_KEY)


def check_conservation(features: FeatureSet, keys: pa.Table) -> None:
    """Measured counts of `keys` against the sums of the tensors' mask channels, and measured within elements.

    Raises FeatureError that names every key where they differ.
    """
    sums = _mask_sums(features)
    total = keys.group_by("key", use_threads=False).aggregate([("measured", "sum"), ("elements", "sum")]).to_pylist()
    faults = [
        f"{row['key']}: {row['measured_sum']} measured of {row['elements_sum']} elements, masks sum to {sums[row['key']]}"
        for row in total
        if row["measured_sum"] != sums[row["key"]] or not 0 <= row["measured_sum"] <= row["elements_sum"]
    ]
    if faults:
        raise FeatureError("coverage and masks differ: " + "; ".join(faults) + ". Materialize features and coverage again.")


def _mask_sums(features: FeatureSet) -> dict[str, int]:
    """Per key, the sum of its mask channel in `x`, or its ids that are not 0."""
    sums = {}
    for featured in features.groups:
        group, x = featured.declaration, featured.encoded.x
        masks = {f.name: x[:, group.value_width + place] for place, f in enumerate(group.valued)}
        ids = {f.name: featured.encoded.ids[:, place] != 0 for place, f in enumerate(group.categorical)}
        for feature in group.features:
            sums[group.key(feature)] = int((masks | ids)[feature.name].sum(dtype=np.float64))
    return sums
