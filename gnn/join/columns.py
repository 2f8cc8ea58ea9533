"""Gather the raw columns of one node type or relation from the tables that describe its elements.

A view is a table and, for each element, the row that describes the element (-1: none). A feature's sources name tables and
columns in order; the first one with a value counts. Values of derived features are given by name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa

from gnn.join.rows import Bools, Floats, Ints, Labels, Rows, Singles, Vocabulary, lengths
from schemas.errors import FeatureError
from schemas.features import Feature, FeatureGroup, Kind


class View:
    """The `rows` (int64 [N]) of `source` that describe each of N elements; looked up when they are first read."""

    def __init__(self, source: Rows, rows: Ints | Callable[[], Ints]) -> None:
        """Take `rows`, or a function that finds them."""
        self.source = source
        self._rows = rows

    @property
    def rows(self) -> Ints:
        """The row of each element: int64 [N], -1 for none."""
        if callable(self._rows):
            self._rows = self._rows()
        return self._rows


@dataclass(frozen=True)
class Sets:
    """One list of strings per element: row `rows[i]` (int64 [N]) of a list column, missing if that row is missing.

    `own`: the elements are the rows of `source`, one after the other.
    """

    source: Rows
    column: str
    rows: Ints
    own: bool = False

    @property
    def known(self) -> Bools:
        """Which elements have a list that was sent: bool [N]."""
        return self.source.lists(self.column).known[self.rows]

    def multi_hot(self, registry: Vocabulary, out: Bools) -> None:
        """Mark the channels of each element's entries in `out` (bool [N, width], all False before)."""
        if self.own:
            self.source.lists(self.column).multi_hot(registry, out)
        else:
            out[:] = self.source.multi_hot(self.column, registry, out.shape[1])[self.rows]

    def arrow(self) -> pa.Array:
        """Return the lists, NULL if missing."""
        known = self.known
        return self.source.lists(self.column).arrow.take(pa.array(np.where(known, self.rows, 0), mask=~known))

    def words(self) -> list[list[str] | None]:
        """Return the lists of a few elements, None if missing; all lists of the column are converted."""
        lists = self.source.lists(self.column).arrow.to_pylist()
        return [lists[row] if known else None for row, known in zip(self.rows.tolist(), self.known.tolist(), strict=True)]


@dataclass(frozen=True)
class Mix:
    """The parts of each of N elements: labels in `items` (-1 without a name) between the offsets `ptr` int64 [N + 1]."""

    items: Labels
    ptr: Ints

    @cached_property
    def known(self) -> Bools:
        """Which elements have at least one item with a name: bool [N]."""
        named = np.zeros(len(self.items.codes) + 1, dtype=np.int64)
        np.cumsum(self.items.codes >= 0, out=named[1:])
        return np.asarray(named[self.ptr[1:]] > named[self.ptr[:-1]], dtype=np.bool_)

    def shares(self, ids: Ints, width: int) -> Singles:
        """Return the share of each element's items by channel id-1: float32 [N, width].

        `ids` int64 [words + 1] are registry indices, 0 if missing. The last channel holds items whose id does not fit or that
        have no name. Elements that are not `known` are all zero.
        """
        size, counts = len(self.ptr) - 1, lengths(self.ptr)
        channel = np.where(ids > 0, np.minimum(ids - 1, width - 1), width - 1)[self.items.codes]
        owner = np.arange(size).repeat(counts)
        found = np.bincount(owner * width + channel, minlength=size * width).reshape(size, width)
        return (found * self.known[:, None] / np.maximum(counts, 1)[:, None]).astype(np.float32)

    def arrow(self) -> pa.Array:
        """Return the items as lists of strings, NULL if nothing is known."""
        lists = pa.ListArray.from_arrays(pa.array(self.ptr, pa.int32()), self.items.arrow())
        return lists if self.known.all() else lists.take(pa.array(np.arange(len(self.known)), mask=~self.known))


_TOGETHER: Final = 8192  # elements that are checked at once, so that the intermediate values stay in the CPU cache
Values = Floats | Labels | Sets | Mix
Derived = Mapping[str, Floats | Labels | Mix]
# optimizer families that have no momentum to report
WITHOUT_MOMENTUM = frozenset({"adadelta", "adagrad", "asgd", "lbfgs", "rprop"})


class Numbers(Mapping[str, Floats]):
    """The numbers of N elements by feature name, which are the rows of `stacked`, float64 [features, N]."""

    def __init__(self, group: FeatureGroup, size: int) -> None:
        """Make room for the features of `group.numeric`, in their order."""
        self.stacked: Floats = np.empty((len(group.numeric), size))
        self._place = group.place_of_numeric

    def __getitem__(self, name: str) -> Floats:
        """Return the numbers of one feature: float64 [N]."""
        found: Floats = self.stacked[self._place[name]]
        return found

    def matrix(self, names: Sequence[str], rows: slice) -> Floats:
        """Return the numbers of some features for the elements in `rows`: float64 [features, rows]."""
        return np.asarray(self.stacked[[self._place[name] for name in names], rows])

    def __contains__(self, name: object) -> bool:
        """Return whether there is a feature of that name."""
        return name in self._place

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._place)

    def __len__(self) -> int:
        """Return the number of features."""
        return len(self._place)


@dataclass(frozen=True)
class Columns:
    """Raw values of N elements by feature name: numbers and flags (NaN missing), categories, multi-hot sets, shares.

    Numbers are finite and within their transform's domain, or NaN. `inapplicable` bool [N] marks the elements that a feature
    cannot apply to, for the features that have such elements.
    """

    size: int
    numbers: Mapping[str, Floats]
    labels: Mapping[str, Labels]
    sets: Mapping[str, Sets]
    inapplicable: Mapping[str, Bools] = field(default_factory=dict)
    shares: Mapping[str, Mix] = field(default_factory=dict)

    def measured(self, feature: Feature) -> Bools:
        """Return which elements (bool [N]) have a value of the feature."""
        if feature.kind is Kind.CATEGORICAL:
            return self.labels[feature.name].codes >= 0
        if feature.kind is Kind.MULTI_HOT:
            return self.sets[feature.name].known
        if feature.kind is Kind.SHARE:
            return self.shares[feature.name].known
        return np.isfinite(self.numbers[feature.name])

    def all_measured(self, group: FeatureGroup) -> Bools:
        """Return `measured` of every feature of the columns' group: bool [features, N]."""
        found = np.empty((len(group.features), self.size), dtype=np.bool_)
        others: Sequence[int] = range(len(group.features))
        if isinstance(self.numbers, Numbers):
            found[group.numeric_places] = np.isfinite(self.numbers.stacked)
            others = group.other_places
        for place in others:
            found[place] = self.measured(group.features[place])
        return found

    def matrix(self, names: Sequence[str], rows: slice) -> Floats:
        """Return the numbers of some features for the elements in `rows`: float64 [features, rows]."""
        if isinstance(self.numbers, Numbers):
            return self.numbers.matrix(names, rows)
        return np.array([self.numbers[name][rows] for name in names])

    def applicable(self, feature: Feature) -> Bools:
        """Return which elements (bool [N]) the feature applies to; one that has a value always does."""
        marks = self.inapplicable.get(feature.name)
        return np.ones(self.size, dtype=np.bool_) if marks is None else ~marks


def _read(feature: Feature, views: Mapping[str, View]) -> Values:
    """Return the value of each element, from the first of the feature's sources that has one.

    A source is read only if an element has no value in those before.
    """
    (table, column), *others = feature.sources
    view = views[table]
    if feature.kind is Kind.MULTI_HOT:
        # the first source only: an empty list that was sent is known, so nothing falls back to another source
        return Sets(view.source, column, view.rows)
    if feature.kind is Kind.CATEGORICAL:
        labels = view.source.labels(column).take(view.rows)
        for table, column in others:
            if (labels.codes >= 0).all():
                break
            labels = labels.otherwise(views[table].source.labels(column).take(views[table].rows))
        return labels
    numbers = view.source.numbers(column)[view.rows]
    for table, column in others:
        known = np.isfinite(numbers)
        if known.all():
            break
        numbers = np.where(known, numbers, views[table].source.numbers(column)[views[table].rows])
    return numbers


def _check(group: FeatureGroup, views: Mapping[str, View], derived: Derived) -> None:
    """Raise FeatureError unless `derived` has just the group's derived features, and `views` the sources of the others."""
    if derived.keys() != group.derived:
        raise FeatureError(
            f"features {', '.join(f.name for f in group.features)}: expected derived values of "
            f"{sorted(group.derived)}, found {sorted(derived)}; compute them in gnn.join.groups"
        )
    unseen = group.direct_tables - views.keys()
    if unseen:
        raise FeatureError(
            f"features {', '.join(f.name for f in group.features)}: expected a source among {', '.join(sorted(views))}, "
            f"found {', '.join(sorted(unseen))}; give the group a view of that table in gnn.join.groups"
        )


def gather(group: FeatureGroup, size: int, views: Mapping[str, View], derived: Derived, placeholder: Bools) -> Columns:
    """Gather the raw columns of every feature of `group` for `size` elements (N).

    `views` are by table; `derived` holds the values of each derived feature by name. Elements marked by `placeholder` (bool
    [N]) have no measured values. Raises FeatureError if a source's table has no view, or if `derived` lacks a derived feature
    or holds another one.
    """
    _check(group, views, derived)
    numbers = Numbers(group, size)
    labels: dict[str, Labels] = {}
    sets: dict[str, Sets] = {}
    shares: dict[str, Mix] = {}
    for feature in group.features:
        values = derived[feature.name] if feature.derive else _read(feature, views)
        if isinstance(values, Labels):
            labels[feature.name] = values
        elif isinstance(values, Sets):
            sets[feature.name] = values
        elif isinstance(values, Mix):
            shares[feature.name] = values
        else:
            numbers[feature.name][:] = values
    keep_within_domain(group, numbers.stacked)
    if placeholder.any():
        numbers.stacked[:, placeholder] = np.nan
        labels = {name: values.only(~placeholder) for name, values in labels.items()}
        sets = {name: replace(values, rows=np.where(placeholder, -1, values.rows), own=False) for name, values in sets.items()}
    return Columns(size, numbers, labels, sets, _inapplicable(numbers, labels, views), shares)


def keep_within_domain(group: FeatureGroup, values: Floats) -> None:
    """Replace numbers that their feature's transform is not defined for by NaN.

    `values` float64 [features, N] are those of `group.numeric`.
    """
    lowest = np.array(group.exclusive_minima)[:, None]
    for first in range(0, values.shape[1], _TOGETHER):
        part = values[:, first : first + _TOGETHER]
        with np.errstate(invalid="ignore"):
            inside = np.isfinite(part) & (part > lowest)
        np.copyto(part, np.nan, where=~inside)


def _inapplicable(numbers: Mapping[str, Floats], labels: Mapping[str, Labels], views: Mapping[str, View]) -> dict[str, Bools]:
    """Return, by feature, the elements (bool [N]) that have no value because they can't have one.

    Examples are the momentum of an optimizer without momentum, and the weights of a layer without weights.
    """
    found: dict[str, Bools] = {}
    if "momentum" in numbers and "optimizer_family" in labels:
        family = labels["optimizer_family"]
        without = np.array([*(word.lower() in WITHOUT_MOMENTUM for word in family.words), False], dtype=np.bool_)
        found["momentum"] = np.isnan(numbers["momentum"]) & without[family.codes]
    if "weight_norm" in numbers and "urza.layer" in views:
        layers = views["urza.layer"]
        found["weight_norm"] = np.isnan(numbers["weight_norm"]) & (layers.source.numbers("parameter_count")[layers.rows] == 0.0)
    return {name: marks for name, marks in found.items() if marks.any()}
