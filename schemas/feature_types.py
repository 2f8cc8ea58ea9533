"""Define the types that declare features: kinds, transforms, features, node types, relations, and the tensor layout.

`schemas.features` declares the features with these types; no feature is declared here.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from math import inf


class Kind(StrEnum):
    """How a feature is encoded."""

    NUMERIC = "numeric"  # one value channel, one mask channel
    CATEGORICAL = "categorical"  # one int64 id: 0 missing, 1..capacity-2 registry entries, capacity-1 unknown
    MULTI_HOT = "multi_hot"  # `width` channels, the last for unknown categories and those without a channel; one mask channel
    FLAG = "flag"  # 0/1 value channel, one mask channel
    SHARE = "share"  # `width` channels that sum to 1, the last as for MULTI_HOT; one mask channel


class Transform(StrEnum):
    """The transform of a raw value into its channel; `gnn.encode.transforms` holds the formulas."""

    IDENTITY = "identity"
    CLAMP01 = "clamp01"
    CLAMP4 = "clamp4"  # clamp to 0..4
    LOG1P = "log1p"
    SIGNED_LOG1P = "signed_log1p"  # sign(x) * log1p(|x|)
    LOG_VAR = "log_var"  # log10(x + 1e-12)
    LOG_Z = "log_z"  # (log1p(x) - m) / s with a prior fitted on the Urza catalogue; momentum without the log
    EWMA = "ewma"  # (x - m) / sqrt(v + epsilon) with the run's state before the packet
    GRAPH_MAX = "graph_max"  # x / max |x| over the relation's measured edges in the graph
    LOSS_PRIOR = "loss_prior"  # (x - 0.8) / 0.3
    PERCENT = "percent"  # x / 100, clamped to 0..1
    LN_CHANCE = "ln_chance"  # ln(x / ln C), clamped to -8..4; C: the graph's output classes; ln(x) if unknown
    CLAMP_ABS1 = "clamp_abs1"  # clamp to -1..1
    CLAMP_ABS3 = "clamp_abs3"  # clamp to -3..3


Sources = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Feature:
    """One feature of a node type, or one attribute of a relation.

    `sources` are (table, column) pairs in order of preference: the first one with a value is used. If `derive` is set, the
    function of that name in `gnn.join.derived` computes the value, and `sources` are the columns that it reads. A column of
    `tolaria.system_state` may be the name of a step metric. `system` is the upstream system to ask if the value is missing.
    `neutral` is the channel's value (after the transform) if the raw value is missing. `registry` names the vocabulary of a
    categorical, multi-hot or share feature. `width` is the number of channels of the latter two. `metric` names the norm that
    `ewma` and `log_z` read. `note` is documentation only.
    """

    name: str
    kind: Kind
    system: str
    sources: Sources
    transform: Transform = Transform.IDENTITY
    mandatory: bool = False
    neutral: float = 0.0
    registry: str | None = None
    width: int = 1
    metric: str | None = None
    derive: str | None = None
    note: str = ""

    @property
    def origin(self) -> str:
        """`sources` as text: `urza.layer.type`; `a.x, else b.x`; `rolling_loss(a.x, b.y)` if the feature is derived."""
        columns = [f"{table}.{column}" for table, column in self.sources]
        return f"{self.derive}({', '.join(columns)})" if self.derive else ", else ".join(columns)

    @property
    def documented_origin(self) -> str:
        """`origin`, and the note after a semicolon if there is one."""
        return f"{self.origin}; {self.note}" if self.note else self.origin

    @property
    def is_logged(self) -> bool:
        """Whether a `log_z` feature takes the logarithm before it is centred; momentum does not."""
        return self.transform is Transform.LOG_Z and self.metric != "momentum"

    @property
    def exclusive_minimum(self) -> float | None:
        """Exclusive lower bound of the transform's domain, None without one. Raw values not above it count as missing."""
        if self.transform is Transform.LOG1P or self.is_logged:
            return -1.0
        if self.transform is Transform.LN_CHANCE:
            return 0.0
        return -1e-12 if self.transform is Transform.LOG_VAR else None

    @property
    def channels(self) -> int:
        """Number of value channels in `x` or `edge_attr`: 0 for a categorical feature, else `width`."""
        return 0 if self.kind is Kind.CATEGORICAL else self.width


@dataclass(frozen=True)
class FeatureGroup:
    """The ordered features of one node type or one relation, and the tensor layout that follows from their order."""

    features: tuple[Feature, ...]

    @cached_property
    def source_tables(self) -> frozenset[str]:
        """Tables that the features read, including those from which derived features are computed."""
        return frozenset(table for feature in self.features for table, _ in feature.sources)

    @cached_property
    def valued(self) -> tuple[Feature, ...]:
        """Features with value and mask channels, in order."""
        return tuple(f for f in self.features if f.kind is not Kind.CATEGORICAL)

    @cached_property
    def categorical(self) -> tuple[Feature, ...]:
        """Features with an int64 id, in order: the columns of `ids`."""
        return tuple(f for f in self.features if f.kind is Kind.CATEGORICAL)

    @cached_property
    def numeric(self) -> tuple[Feature, ...]:
        """Features with one number per element, in order."""
        return tuple(f for f in self.features if f.kind in (Kind.NUMERIC, Kind.FLAG))

    @cached_property
    def place_of_numeric(self) -> dict[str, int]:
        """The place of each feature in `numeric`, by name."""
        return {feature.name: place for place, feature in enumerate(self.numeric)}

    @cached_property
    def numeric_places(self) -> list[int]:
        """The places of `numeric` among the features."""
        return [place for place, feature in enumerate(self.features) if feature.name in self.place_of_numeric]

    @cached_property
    def other_places(self) -> list[int]:
        """The places of the features that are not in `numeric`."""
        return [place for place, feature in enumerate(self.features) if feature.name not in self.place_of_numeric]

    @cached_property
    def exclusive_minima(self) -> tuple[float, ...]:
        """The exclusive lower bound of each feature in `numeric`, minus infinity without one."""
        return tuple(-inf if f.exclusive_minimum is None else f.exclusive_minimum for f in self.numeric)

    @cached_property
    def direct_tables(self) -> frozenset[str]:
        """Tables that the features read which are not derived."""
        return frozenset(table for feature in self.features if not feature.derive for table, _ in feature.sources)

    @cached_property
    def derived(self) -> frozenset[str]:
        """Names of the features that a function computes."""
        return frozenset(f.name for f in self.features if f.derive)

    @cached_property
    def value_width(self) -> int:
        """Number of value channels; they are the first columns of `x`."""
        return sum(f.channels for f in self.features)

    @cached_property
    def width(self) -> int:
        """Number of columns of `x` (float32): value channels in order, then one mask channel per valued feature in order."""
        return self.value_width + len(self.valued)


@dataclass(frozen=True)
class NodeType(FeatureGroup):
    """A node type: its name, what it stands for, and its features."""

    name: str
    doc: str

    @cached_property
    def family(self) -> str:
        """Coverage family, e.g. `node.layer`."""
        return f"node.{self.name}"

    @property
    def table(self) -> str:
        """Feature table, e.g. `features.layer`."""
        return f"features.{self.name}"

    def key(self, feature: Feature) -> str:
        """Return the coverage key, e.g. `layer.loss`."""
        return f"{self.name}.{feature.name}"


@dataclass(frozen=True)
class Relation(FeatureGroup):
    """A relation from node type `source` to node type `target`; its reverse `rev_<name>` carries the same attributes."""

    source: str
    name: str
    target: str
    doc: str

    @cached_property
    def triple(self) -> tuple[str, str, str]:
        """PyG edge type."""
        return (self.source, self.name, self.target)

    @cached_property
    def reverse(self) -> tuple[str, str, str]:
        """PyG edge type of the reverse."""
        return (self.target, f"rev_{self.name}", self.source)

    @cached_property
    def short(self) -> str:
        """Name in families and tables: `layer_connects`; for the context's broadcast edges `context_layer`."""
        return f"{self.source}_{self.target if self.source == 'context' else self.name}"

    @cached_property
    def family(self) -> str:
        """Coverage family, e.g. `edges.layer_connects`."""
        return f"edges.{self.short}"

    @property
    def table(self) -> str:
        """Feature table, e.g. `features.layer_connects`."""
        return f"features.{self.short}"

    def key(self, feature: Feature) -> str:
        """Return the coverage key, e.g. `edges.layer_connects.latency_ms`."""
        return f"{self.family}.{feature.name}"
