"""Encode raw columns as the tensors' channels: transforms, neutral values, masks, registry ids.

Values are computed in float64 and cast to float32 once. Most channels are marks, 0 or 1; they are kept as booleans, which
take an eighth of the memory, until a tensor is made.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gnn.encode import transforms
from gnn.join.columns import Columns
from gnn.join.rows import Bools, Floats, Ints, Singles, Vocabulary, ids_of
from gnn.norms.ewma import EwmaTrace
from schemas.features import GROUPS, Feature, FeatureGroup, Kind, Transform

OUTPUT_CLASSES: Final = "output_classes"
_LARGEST: Final = np.finfo(np.float32).max


@dataclass(frozen=True)
class Scale:
    """What relative transforms need: the run's EWMA states before each packet, and the packet of each element.

    `packet` int64 [N] is each element's packet, `ptr` int64 [P + 1] bounds each packet's elements.
    """

    ewma: Mapping[str, EwmaTrace]
    packet: Ints
    ptr: Ints


class Layout:
    """The columns of `x` that hold each feature of a group; computed once per group.

    `x` is made from two arrays: `values` float32 [N, `value_width`], and `marks` bool [N, `mark_width`], which hold the
    multi-hot channels and the masks, with columns of False at the end up to a whole number of bytes. Both are in order of `x`.
    """

    def __init__(self, group: FeatureGroup) -> None:
        """Compute the layout of `group`."""
        numbers = [f for f in group.valued if f.kind not in (Kind.MULTI_HOT, Kind.SHARE)]
        order = [*transforms.UNARY, *(t for t in Transform if t not in transforms.UNARY)]
        # features with the same transform are adjacent, so that one call transforms all of them
        self.numbers: tuple[Feature, ...] = tuple(sorted(numbers, key=lambda f: order.index(f.transform)))
        self.names = [feature.name for feature in self.numbers]
        self.place = {feature.name: place for place, feature in enumerate(self.numbers)}
        self.sets: tuple[Feature, ...] = tuple(f for f in group.valued if f.kind is Kind.MULTI_HOT)
        self.shares: tuple[Feature, ...] = tuple(f for f in group.valued if f.kind is Kind.SHARE)
        self.categorical = group.categorical
        self.width = group.width
        starts = dict(zip(group.valued, np.cumsum([0, *(f.channels for f in group.valued)]).tolist(), strict=False))
        masks = {feature: group.value_width + place for place, feature in enumerate(group.valued)}
        marked = np.zeros(group.width, dtype=np.bool_)
        marked[group.value_width :] = True
        for feature in self.sets:
            marked[starts[feature] : starts[feature] + feature.width] = True
        place = np.where(marked, np.cumsum(marked), np.cumsum(~marked)) - 1  # of each column of `x` in `values` or `marks`
        self.value_width = int((~marked).sum())
        self.mark_width = (int(marked.sum()) + 7) // 8 * 8
        self._pieces = _pieces(marked, place)
        self.columns = _as_slice(place[[starts[f] for f in self.numbers]])
        self.masks = _as_slice(place[[masks[f] for f in self.numbers]])
        self.mask_of = {f: int(place[masks[f]]) for f in group.valued}
        self.first_mask = int(marked[: group.value_width].sum())  # the masks are the last marks, in order of `valued`
        self.wide = {f: slice(place[starts[f]], place[starts[f]] + f.width) for f in (*self.sets, *self.shares)}
        self.neutral = np.array([[f.neutral] for f in self.numbers], dtype=np.float32)
        kinds = [f.transform for f in self.numbers]
        self.unary = [
            (transform, slice(kinds.index(transform), kinds.index(transform) + kinds.count(transform)))
            for transform in transforms.UNARY
            if transform is not Transform.IDENTITY and transform in kinds
        ]
        self.relative = [(i, f) for i, f in enumerate(self.numbers) if f.transform not in transforms.UNARY]

    def channels(self, values: Singles, marks: Bools | NDArray[np.uint8]) -> Singles:
        """Return `x`, float32 [N, width]."""
        x = np.empty((len(values), self.width), dtype=np.float32)
        for is_marks, columns, own in self._pieces:
            x[:, columns] = (marks if is_marks else values)[:, own]
        return x


def _as_slice(columns: Ints) -> Ints | slice:
    """Return the columns as a slice if they follow each other, since NumPy writes to one much faster."""
    follow = len(columns) > 0 and bool((np.diff(columns) == 1).all())
    return slice(int(columns[0]), int(columns[-1]) + 1) if follow else columns


def _pieces(marked: Bools, place: Ints) -> list[tuple[bool, slice, slice]]:
    """Return stretches of columns of `x`: whether they are marks, the columns, and those in `marks` or `values`."""
    found = []
    for is_marks, columns in groupby(range(len(marked)), key=lambda column: bool(marked[column])):
        first, *others = columns
        size = 1 + len(others)
        found.append((is_marks, slice(first, first + size), slice(int(place[first]), int(place[first]) + size)))
    return found


@dataclass(frozen=True)
class Encoded:
    """Encoded elements: `values` and `marks`, as in `layout`, and `ids` int64 [N, categorical], registry ids."""

    layout: Layout
    values: Singles
    marks: Bools
    ids: Ints

    @cached_property
    def x(self) -> Singles:
        """Channels and masks: float32 [N, width]."""
        return self.layout.channels(self.values, self.marks)


class Vocabularies:
    """The registries of one snapshot, with a cache of the ids of word lists that recur."""

    _KEPT: Final = 512

    def __init__(self, registries: Mapping[str, Vocabulary]) -> None:
        """Wrap `registries`."""
        self._registries = registries
        self._found: dict[tuple[str, tuple[str, ...]], Ints] = {}
        # encoded groups that depend on a host alone, by the identity of the group; the group is kept so that its id stays valid
        self._of_hosts: dict[int, tuple[object, Encoded]] = {}

    def of_host(self, group: object, make: Callable[[], Encoded]) -> Encoded:
        """Return a copy of what `make` returns for `group`; `make` is called once per group object, and its result cached."""
        found = self._of_hosts.get(id(group))
        if found is None:
            if len(self._of_hosts) >= self._KEPT:
                self._of_hosts.clear()
            found = self._of_hosts[id(group)] = (group, make())
        # tensors share memory with their arrays, so a copy of the ids and another `x` protect the cached arrays
        made = found[1]
        return Encoded(made.layout, made.values, made.marks, made.ids.copy())

    def registry(self, feature: Feature) -> Vocabulary:
        """Return the registry of a categorical, multi-hot or share feature."""
        return self._registries[feature.registry or feature.name]

    def ids(self, feature: Feature, words: tuple[str, ...]) -> Ints:
        """Return the registry ids of words, int64 [words + 1]; the last is 0, the id of a missing word."""
        key = (feature.registry or feature.name, words)
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= self._KEPT:
                self._found.clear()
            found = self._found[key] = ids_of(self.registry(feature), words)
        return found


LAYOUTS: Final[Mapping[str, Layout]] = {group.family: Layout(group) for group in GROUPS}


def _relative(feature: Feature, values: Floats, columns: Columns, scale: Scale) -> Floats:
    """Apply a transform that needs more than the value; return float64 values."""
    if feature.transform is Transform.GRAPH_MAX:
        return transforms.graph_max(values, scale.ptr)
    if feature.transform is Transform.LN_CHANCE:
        return transforms.ln_chance(values, columns.numbers[OUTPUT_CLASSES])
    metric = feature.metric or feature.name
    if feature.transform is Transform.LOG_Z:
        return np.log1p(np.ascontiguousarray(values)) if feature.is_logged else values
    trace = scale.ewma[metric]
    return transforms.ewma(values, trace.mean[scale.packet], trace.var[scale.packet])


_TOGETHER: Final = 8192  # elements that are encoded at once, so that the intermediate values stay in the CPU cache


def encode(layout: Layout, columns: Columns, vocabularies: Vocabularies, scale: Scale) -> Encoded:
    """Encode the raw columns of one group.

    `log_z` features become log1p(x) (momentum: x) here; `gnn.graph.scale` makes z-scores of them later.
    """
    size = columns.size
    values = np.empty((size, layout.value_width), dtype=np.float32)
    marks = np.zeros((size, layout.mark_width), dtype=np.bool_)
    if layout.numbers:
        relative = {row: _relative(f, columns.numbers[f.name], columns, scale) for row, f in layout.relative} if size else {}
        for first in range(0, size, _TOGETHER):
            rows = slice(first, first + _TOGETHER)
            _encode_numbers(values[rows], marks[rows], rows, layout, columns, relative)
    for feature in layout.sets:
        sets = columns.sets[feature.name]
        sets.multi_hot(vocabularies.registry(feature), marks[:, layout.wide[feature]])
        marks[:, layout.mask_of[feature]] = sets.known
    for feature in layout.shares:
        mix = columns.shares[feature.name]
        values[:, layout.wide[feature]] = mix.shares(vocabularies.ids(feature, mix.items.words), feature.width)
        marks[:, layout.mask_of[feature]] = mix.known
    ids = np.zeros((size, len(layout.categorical)), dtype=np.int64)
    for place, feature in enumerate(layout.categorical):
        labels = columns.labels[feature.name]
        ids[:, place] = vocabularies.ids(feature, labels.words)[labels.codes]
    return Encoded(layout, values, marks, ids)


def _encode_numbers(
    values: Singles, marks: Bools, rows: slice, layout: Layout, columns: Columns, relative: Mapping[int, Floats]
) -> None:
    """Fill `values` and masks of number features for the elements in `rows`.

    `relative` holds, by place, the relative features' transformed values for all elements.
    """
    raw = columns.matrix(layout.names, rows)
    # values too large for float32 become its largest value; those outside a transform's domain are missing
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        channels = raw.astype(np.float32)
        for transform, places in layout.unary:
            channels[places] = transforms.UNARY[transform](raw[places])
        for place, transformed in relative.items():
            channels[place] = transformed[rows]
    missing = np.isnan(raw)
    np.minimum(channels, _LARGEST, out=channels)
    np.maximum(channels, -_LARGEST, out=channels)
    np.copyto(channels, layout.neutral, where=missing)
    values[:, layout.columns] = channels.T
    marks[:, layout.masks] = ~missing.T
