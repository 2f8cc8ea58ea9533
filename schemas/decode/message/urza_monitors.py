"""Decode the seed sections of an Urza graph: monitored layers with weights and thresholds, and capabilities."""

from collections.abc import Iterator
from typing import Any

from schemas.contracts import Reason
from schemas.decode.message.urza_graph import layer_names, resolve_layer
from schemas.decode.shape.collector import BadRecord
from schemas.decode.shape.plain import Plain, is_text

Monitor = dict[str, Any]


def monitor_columns(graph: Plain) -> tuple[dict[str, Any], list[BadRecord]]:
    """Return the columns `monitors`, `monitor_thresholds` and capabilities of urza.blueprint, and the errors of bad entries.

    A seed is named by its id or, under by_seed_index, by its index in decimal.
    """
    monitors = graph.section("monitors")
    monitors.count_others({"by_seed_id", "by_seed_index", "thresholds"})
    capabilities = graph.section("capabilities")
    capabilities.count_others({"allowed_blending_methods"})
    names = layer_names(graph)
    found: list[Monitor] = []
    errors: list[BadRecord] = []
    for seed, layer, weight, what in _entries(graph, monitors):
        try:
            if not is_text(seed):
                raise BadRecord(Reason.BAD_VALUE, f"{what}: expected a seed id of Unicode text")
            one = Plain({"weight": weight}, what, graph.drift)
            found.append({"seed": seed, "layer_id": resolve_layer(layer, names, what), "weight": one.number("weight")})
        except BadRecord as error:
            errors.append(error)
    declared = any(key in monitors.values for key in ("by_seed_id", "by_seed_index")) or "monitored_layers" in graph.values
    thresholds = monitors.section("thresholds")
    columns = {
        "monitors": sorted(found, key=lambda one: (one["seed"], one["layer_id"])) if declared else None,
        "monitor_thresholds": _thresholds(thresholds) if "thresholds" in monitors.values else None,
        "capabilities_allowed_blending_methods": capabilities.texts("allowed_blending_methods"),
    }
    return columns, errors


def _thresholds(thresholds: Plain) -> list[tuple[str, float]]:
    if not all(map(is_text, thresholds.values)):
        raise BadRecord(Reason.BAD_VALUE, f"{thresholds.name}: expected seed ids of Unicode text")
    values = ((seed, thresholds.number(seed)) for seed in sorted(thresholds.values))
    return [(seed, value) for seed, value in values if value is not None]


def _entries(graph: Plain, monitors: Plain) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield (seed, layer id or index, weight or None, name in messages) of every entry, whichever spelling it uses."""
    by_index = monitors.value("by_seed_index")
    if isinstance(by_index, list):
        by_index = {str(index): layers for index, layers in enumerate(by_index)}
    for key, seeds in (("by_seed_id", monitors.value("by_seed_id")), ("by_seed_index", by_index)):
        if seeds is None:
            continue
        if not isinstance(seeds, dict):
            raise monitors.bad(key, "an object of seeds")
        for seed, layers in seeds.items():
            what = f"{monitors.name}.{key}.{seed[:80]}"
            yield from ((seed, layer, weight, what) for layer, weight in _layers(layers, what))
    for index, entry in enumerate(graph.items("monitored_layers")):
        what = f"{graph.name}.monitored_layers[{index}]"
        if not isinstance(entry, list) or len(entry) not in (2, 3) or not isinstance(entry[0], str | int):
            raise BadRecord(Reason.BAD_VALUE, f"{what}: expected [seed, layer, weight?], found {str(entry)[:80]!r}")
        yield str(entry[0]), entry[1], entry[2] if len(entry) > 2 else None, what


def _layers(layers: Any, what: str) -> Iterator[tuple[Any, Any]]:
    """Yield (layer, weight) of one seed, from a list of layers or [layer, weight] pairs, or an object of weights by layer."""
    if isinstance(layers, dict):
        yield from layers.items()
        return
    if not isinstance(layers, list):
        raise BadRecord(Reason.BAD_VALUE, f"{what}: expected a list of layers, found {str(layers)[:80]!r}")
    for layer in layers:
        if isinstance(layer, list) and len(layer) == 2:
            yield layer[0], layer[1]
        else:
            yield layer, None
