"""Decode the graph inside an Urza record: layers, activations, parameters, connections and influences as plain rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.contracts import Reason
from schemas.contracts.urza import GUARD
from schemas.decode.shape.collector import BadRecord
from schemas.decode.shape.plain import Plain, is_text

_NO_ACTIVATION: Final = "none"
_LAYER: Final = frozenset(
    [
        "layer_id",
        "type",
        "depth",
        "input_channels",
        "output_channels",
        "activation",
        "activation_type",
        "dropout_rate",
        "weight_norm",
        "gradient_norm",
        "latency_ms",
        "parameter_count",
    ]
)
_ACTIVATION: Final = frozenset(
    ["activation_id", "type", "layer_id", "saturation_rate", "gradient_flow", "computational_cost", "nonlinearity_strength"]
)
_PARAMETER: Final = frozenset(
    ["name", "parameter_id", "parameter_count", "layer_ids", "min", "max", "span", "default", "target"]
)
_CONNECTION: Final = frozenset({"source", "target", "connection_strength", "residual"})
_INFLUENCE: Final = frozenset({"activation_id", "parameter_id", "influence", "magnitude", "effect"})
_GRAPH: Final = frozenset(
    [
        "layers",
        "activations",
        "parameters",
        "adjacency",
        "activation_parameters",
        "monitors",
        "monitored_layers",
        "capabilities",
    ]
)
Row = dict[str, Any]


@dataclass
class GraphRows:
    """Rows of one table from one record, and the errors of elements that could not be read."""

    table: str
    rows: list[Row] = field(default_factory=list)
    errors: list[BadRecord] = field(default_factory=list)


def graph_rows(graph: Plain) -> Iterator[GraphRows]:
    """Yield rows of every table of the graph. Raises BadRecord if one of its lists is not a list."""
    graph.count_others(_GRAPH)
    layers = _elements(graph, "layers", "urza.layer", _layer)
    guards = {row["layer_id"] for row in layers.rows if row["is_placeholder"]}
    guarded = {row["index"] for row in layers.rows if row["is_placeholder"]}
    activations = _elements(graph, "activations", "urza.activation", _activation)
    for row in activations.rows:
        owner = row["layer_id"]
        row["is_placeholder"] = owner in guards if owner else row["index"] in guarded
    _complete(layers.rows, activations.rows, listed="activations" in graph.values)
    yield layers
    yield activations
    yield _elements(graph, "parameters", "urza.parameter", _parameter)
    yield _connections(graph)
    yield _elements(graph, "activation_parameters", "urza.activation_parameter", _influence)


def _complete(layers: list[Row], activations: list[Row], *, listed: bool) -> None:
    """Fill in missing activation types of layers: the type of the layer's listed activation, else `none`.

    If no part of the record mentions activations, its layers keep NULL.
    """
    if not listed and not any(row["activation_type"] for row in layers):
        return
    owned = {row["layer_id"]: row["type"] for row in reversed(activations) if row["layer_id"]}
    for row in layers:
        row["activation_type"] = row["activation_type"] or owned.get(row["layer_id"], _NO_ACTIVATION)


def layer_names(graph: Plain) -> list[str | None]:
    """Return the layer id by index; None if a layer has none."""
    names = [item.get("layer_id") if isinstance(item, dict) else None for item in graph.items("layers")]
    return [name if isinstance(name, str) and name else None for name in names]


def resolve_layer(where: Any, names: list[str | None], what: str) -> str:
    """Return the layer id for an index or an id. Raises BadRecord for an index out of range and for other values."""
    if isinstance(where, str):
        if not is_text(where):
            raise BadRecord(Reason.BAD_VALUE, f"{what}: expected a layer id of Unicode text, found {where[:80]!r}")
        return where
    if isinstance(where, float) and where.is_integer():
        where = int(where)
    if isinstance(where, bool) or not isinstance(where, int):
        raise BadRecord(Reason.BAD_VALUE, f"{what}: expected the index of a layer, found {str(where)[:80]!r}")
    name = names[where] if 0 <= where < len(names) else None
    if name is None:
        raise BadRecord(Reason.BAD_INDEX, f"{what}: expected an index below {len(names)} of a layer with an id, found {where}")
    return name


def _elements(graph: Plain, key: str, table: str, read: Callable[[int, Plain], Row]) -> GraphRows:
    found = GraphRows(table)
    for index, item in graph.objects(key):
        if isinstance(item, BadRecord):
            found.errors.append(item)
            continue
        try:
            row = read(index, item)
        except BadRecord as error:
            found.errors.append(error)
            continue
        found.rows.append(row | {"non_finite": item.non_finite})
    return found


def _layer(index: int, item: Plain) -> Row:
    item.count_others(_LAYER)
    written = [key for key in ("activation_type", "activation") if key in item.values]
    activation = next((text for text in map(item.text, written) if text), None)
    return {
        "index": index,
        "layer_id": item.text("layer_id"),
        "type": item.text("type"),
        "depth": item.count("depth"),
        "input_channels": item.count("input_channels"),
        "output_channels": item.count("output_channels"),
        "activation_type": activation or (_NO_ACTIVATION if written else None),
        "dropout_rate": item.number("dropout_rate"),
        "weight_norm": item.number("weight_norm"),
        "gradient_norm": item.number("gradient_norm"),
        "latency_ms": item.number("latency_ms"),
        "parameter_count": item.count("parameter_count"),
        "is_placeholder": item.text("type") == GUARD,
    }


def _activation(index: int, item: Plain) -> Row:
    item.count_others(_ACTIVATION)
    return {
        "index": index,
        "activation_id": item.text("activation_id"),
        "type": item.text("type"),
        "layer_id": item.text("layer_id"),
        "saturation_rate": item.number("saturation_rate"),
        "gradient_flow": item.number("gradient_flow"),
        "computational_cost": item.number("computational_cost"),
        "nonlinearity_strength": item.number("nonlinearity_strength"),
        "is_placeholder": False,
    }


def _parameter(index: int, item: Plain) -> Row:
    """Return the row of a parameter; its id falls back to its name, since existing exports send only names."""
    item.count_others(_PARAMETER)
    return {
        "index": index,
        "parameter_id": item.text("parameter_id") or item.text("name"),
        "name": item.text("name"),
        "parameter_count": item.count("parameter_count"),
        "layer_ids": item.texts("layer_ids"),
        "min": item.number("min"),
        "max": item.number("max"),
        "span": item.number("span"),
        "default": item.number("default"),
        "target": item.text("target"),
    }


def _influence(_: int, item: Plain) -> Row:
    item.count_others(_INFLUENCE)
    return {
        "activation_id": item.text("activation_id"),
        "parameter_id": item.text("parameter_id"),
        "influence": item.number("influence"),
        "magnitude": item.number("magnitude"),
        "effect": item.number("effect"),
    }


def _connections(graph: Plain) -> GraphRows:
    """Return the connections by layer ids; an end that is out of range makes a connection bad."""
    found = GraphRows("urza.connection")
    adjacency = graph.section("adjacency")
    adjacency.count_others({"layer"})
    names = layer_names(graph)
    for index, item in enumerate(adjacency.items("layer")):
        try:
            found.rows.append(_connection(adjacency, index, item, names))
        except BadRecord as error:
            found.errors.append(error)
    return found


def _connection(adjacency: Plain, index: int, item: Any, names: list[str | None]) -> Row:
    what = f"{adjacency.name}.layer[{index}]"
    if isinstance(item, list) and len(item) in (2, 3):
        keys = ("source", "target", "connection_strength")
        item = dict(zip(keys, item, strict=False))
    if not isinstance(item, dict):
        raise BadRecord(
            Reason.BAD_VALUE, f"{what}: expected [source, target, strength?] or an object, found {str(item)[:80]!r}"
        )
    end = Plain(item, f"{adjacency.name}.layer", adjacency.drift)
    end.count_others(_CONNECTION)
    return {
        "source_layer_id": resolve_layer(item.get("source"), names, f"{what}.source"),
        "target_layer_id": resolve_layer(item.get("target"), names, f"{what}.target"),
        "connection_strength": end.number("connection_strength"),
        "residual_flag": end.flag("residual"),
        "non_finite": end.non_finite,
    }
