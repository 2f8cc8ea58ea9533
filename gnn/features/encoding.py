"""Raw columns -> the tensors' channels: transforms, neutral values, masks, registry ids. float64 maths, one cast to float32."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gnn.features import transforms
from gnn.features.columns import Columns
from gnn.features.ewma import EwmaTrace
from gnn.features.rows import Bools, Floats, Ints, Singles, Vocabulary
from schemas.artifacts import PriorNorm
from schemas.features import GROUPS, Feature, FeatureGroup, Kind, Transform

_LARGEST: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Scale:
    """What relative transforms need: the run's states before each packet, the fitted priors, and whose element is whose.

    `packet` int64 [N] is each element's packet, `ptr` int64 [P + 1] bounds each packet's elements.
    """

    ewma: Mapping[str, EwmaTrace]
    priors: Mapping[str, PriorNorm]
    packet: Ints
    ptr: Ints


@dataclass(frozen=True)
class Encoded:
    """`x` float32 [N, width], `ids` int64 [N, categorical]; `raw` float64 [numbers, N] and `measured` bool [valued, N]
    in declared order, NaN and False where missing."""

    x: Singles
    ids: Ints
    raw: Floats
    measured: Bools


class Layout:
    """Where each feature of a group lies in `x`: computed once per group."""

    def __init__(self, group: FeatureGroup) -> None:
        """Lay `group` out."""
        self.numbers: tuple[Feature, ...] = tuple(f for f in group.valued if f.kind is not Kind.MULTI_HOT)
        self.sets: tuple[Feature, ...] = tuple(f for f in group.valued if f.kind is Kind.MULTI_HOT)
        self.categorical = group.categorical
        self.width = group.width
        starts = dict(zip(group.valued, np.cumsum([0, *(f.channels for f in group.valued)]).tolist(), strict=False))
        masks = {feature: group.value_width + place for place, feature in enumerate(group.valued)}
        self.columns = np.array([starts[f] for f in self.numbers], dtype=np.int64)
        self.masks = np.array([masks[f] for f in self.numbers], dtype=np.int64)
        self.set_columns = [(slice(starts[f], starts[f] + f.width), masks[f]) for f in self.sets]
        self.valued_numbers = np.array([masks[f] - group.value_width for f in self.numbers], dtype=np.int64)
        self.valued_sets = [masks[f] - group.value_width for f in self.sets]
        self.neutral = np.array([[f.neutral] for f in self.numbers])
        self.unary = [
            (transform, np.array([i for i, f in enumerate(self.numbers) if f.transform is transform]))
            for transform in transforms.UNARY
            if transform is not Transform.IDENTITY and any(f.transform is transform for f in self.numbers)
        ]
        self.relative = [(i, f) for i, f in enumerate(self.numbers) if f.transform not in transforms.UNARY]


LAYOUTS: Final[Mapping[str, Layout]] = {group.family: Layout(group) for group in GROUPS}


def _relative(feature: Feature, values: Floats, scale: Scale) -> Floats:
    """A transform that needs more than the value."""
    if feature.transform is Transform.GRAPH_MAX:
        return transforms.graph_max(values, scale.ptr)
    metric = feature.metric or feature.name
    if feature.transform is Transform.LOG_Z:
        return transforms.log_z(values, scale.priors[metric])
    trace = scale.ewma[metric]
    return transforms.ewma(values, trace.mean[scale.packet], trace.var[scale.packet])


def encode(layout: Layout, columns: Columns, registries: Mapping[str, Vocabulary], scale: Scale) -> Encoded:
    """Encode the raw columns of one group. A value whose channel would not be finite is missing."""
    size = columns.size
    x = np.zeros((size, layout.width), dtype=np.float32)
    measured = np.zeros((len(layout.numbers) + len(layout.sets), size), dtype=np.bool_)
    raw = np.empty((len(layout.numbers), size))
    for place, feature in enumerate(layout.numbers):
        raw[place] = columns.numbers[feature.name]
    if size and len(layout.numbers):
        channels, finite = _channels(layout, raw, scale)
        x[:, layout.columns] = channels.T
        x[:, layout.masks] = finite.T
        measured[layout.valued_numbers] = finite
        raw[~finite] = np.nan
    for feature, (channel, mask), place in zip(layout.sets, layout.set_columns, layout.valued_sets, strict=True):
        sets = columns.sets[feature.name]
        known = sets.known
        x[:, channel] = sets.multi_hot(registries[feature.registry or feature.name], feature.width)
        x[:, mask] = known
        measured[place] = known
    ids = np.zeros((size, len(layout.categorical)), dtype=np.int64)
    for place, feature in enumerate(layout.categorical):
        ids[:, place] = columns.labels[feature.name].ids(registries[feature.registry or feature.name])
    return Encoded(x, ids, raw, measured)


def _channels(layout: Layout, raw: Floats, scale: Scale) -> tuple[Floats, Bools]:
    """Transformed values (neutral where missing) and which of them are measured: [numbers, N] each."""
    channels = raw.copy()
    for transform, rows in layout.unary:
        channels[rows] = transforms.unary(transform, raw[rows])
    for row, feature in layout.relative:
        channels[row] = _relative(feature, raw[row], scale)
    finite = np.isfinite(raw) & np.isfinite(channels)
    return np.where(finite, np.clip(channels, -_LARGEST, _LARGEST), layout.neutral), finite
