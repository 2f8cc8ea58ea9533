"""Draw a graph as a PNG: nodes by type, edges by relation, and how much of each was measured."""

import io
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gnn.graph.batch import GraphBatch
from gnn.graph.dataset import GraphDataset
from schemas.errors import FeatureError
from schemas.features import NODE_TYPES, RELATIONS, FeatureGroup

Floats = NDArray[np.float64]

# x position of each node type's column, from the types that act to those acted on
_COLUMNS: Final = {"context": 0.0, "seed": 1.0, "layer": 2.2, "activation": 3.3, "parameter": 4.4, "blueprint": 5.4}
_COLOURS: Final = {
    "context": "#7f7f7f",
    "seed": "#2ca02c",
    "layer": "#1f77b4",
    "activation": "#ff7f0e",
    "parameter": "#9467bd",
    "blueprint": "#8c564b",
}
_MOST_NAMED: Final = 40


def measured_share(group: FeatureGroup, values: Any, ids: Any) -> Floats:
    """Return the share of a group's features that are measured on each element: 0..1, float64 [N].

    `values` is `x` or `edge_attr`, `ids` the categorical features' ids.
    """
    masks = np.asarray(values)[:, group.value_width :].sum(axis=1) + (np.asarray(ids) != 0).sum(axis=1)
    return np.asarray(masks / max(len(group.features), 1), dtype=np.float64)


def picture(batch: GraphBatch, names: Mapping[str, list[str]], title: str, number: int = 0) -> bytes:
    """Return the PNG of graph `number` of a CPU batch.

    Colours show node types and relations; a pale node or edge has few measured features. `names` holds the graph's element
    ids by node type. Raises FeatureError if there is no such graph.
    """
    if not 0 <= number < batch.num_graphs:
        raise FeatureError(f"graph {number}: expected one of 0..{batch.num_graphs - 1} of the batch; choose another")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tallest = max((len(own) for own in names.values()), default=1)
    figure = Figure(figsize=(13, min(40.0, max(5.0, 0.32 * tallest + 2.0))), layout="constrained")
    axes = figure.add_subplot()
    places = _places(batch, number)
    lines = _draw_edges(axes, batch, number, places)
    _draw_nodes(axes, batch, number, places, names)
    axes.set_title(title)
    axes.axis("off")
    axes.legend(handles=lines, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncol=4, fontsize=7, frameon=False)
    buffer = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def picture_of(dataset: GraphDataset, number: int) -> bytes:
    """Return the PNG of graph `number` of a dataset; the title names its packet, run and host."""
    if not 0 <= number < len(dataset):
        raise FeatureError(f"graph {number}: expected one of 0..{len(dataset) - 1} of the dataset; choose another")
    key = dataset.keys.slice(number, 1).to_pylist()[0]
    host = key["blueprint_id"] or "a host without blueprint"
    title = f"packet {key['packet_id']} of run {key['training_run_id']}, {host}"
    return picture(dataset.batch([number]), {node.name: dataset.element_ids(node.name, number) for node in NODE_TYPES}, title)


def _span(ptr: Any, number: int) -> slice:
    return slice(int(ptr[number]), int(ptr[number + 1]))


def _places(batch: GraphBatch, number: int) -> dict[str, Floats]:
    """Return the x and y of every node by type: one column per type, all of the same height."""
    found = {}
    for node in NODE_TYPES:
        span = _span(batch.ptr[node.name], number)
        count = span.stop - span.start
        height = (np.arange(count) + 0.5) / max(count, 1)
        bend = 0.12 * np.sin(np.arange(count) * 2.4) if count > 1 else np.zeros(count)
        found[node.name] = np.stack([_COLUMNS[node.name] + bend, 1.0 - height], axis=1)
    return found


def _draw_edges(axes: Any, batch: GraphBatch, number: int, places: Mapping[str, Floats]) -> list[Any]:
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    legend = []
    for place, relation in enumerate(RELATIONS):
        span = _span(batch.edge_ptr[relation.triple], number)
        index = batch.edge_index[relation.triple][:, span].numpy()
        source = places[relation.source][index[0] - int(batch.ptr[relation.source][number])]
        target = places[relation.target][index[1] - int(batch.ptr[relation.target][number])]
        values, ids = batch.edge_attr[relation.triple][span], batch.edge_ids[relation.triple][span]
        share = measured_share(relation, values, ids)
        colour = colormaps["tab20"](place % 20)[:3]
        tints = [(*colour, 0.15 + 0.7 * part) for part in share]
        ends: Any = np.stack([source, target], axis=1)
        axes.add_collection(LineCollection(ends, colors=tints, linewidths=1.2, zorder=1))
        mean = f"{share.mean():.0%} measured" if len(share) else "none sent"
        label = f"{relation.source} {relation.name} {relation.target}: {len(share)}, {mean}"
        legend.append(Line2D([], [], color=colour, label=label))
    return legend


def _draw_nodes(
    axes: Any, batch: GraphBatch, number: int, places: Mapping[str, Floats], names: Mapping[str, list[str]]
) -> None:
    for node in NODE_TYPES:
        span = _span(batch.ptr[node.name], number)
        share = measured_share(node, batch.x[node.name][span], batch.ids[node.name][span])
        xy = places[node.name]
        mean = f"{share.mean():.0%} measured" if len(share) else "none"
        axes.text(_COLUMNS[node.name], 1.03, f"{node.name} ({len(share)})\n{mean}", ha="center", fontsize=9, weight="bold")
        axes.scatter(xy[:, 0], xy[:, 1], s=90, c="white", zorder=2)
        tints = [(*_rgb(_COLOURS[node.name]), 0.2 + 0.8 * part) for part in share]
        axes.scatter(xy[:, 0], xy[:, 1], s=90, c=tints or None, edgecolors=_COLOURS[node.name], linewidths=0.8, zorder=3)
        for place, (name, part) in enumerate(zip(names.get(node.name, []), share, strict=False)):
            if place < _MOST_NAMED:
                axes.text(xy[place, 0], xy[place, 1] - 0.012, f"{name} {part:.0%}", ha="center", va="top", fontsize=6, zorder=4)
    axes.set_xlim(-0.6, 6.0)
    axes.set_ylim(-0.05, 1.12)


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue
