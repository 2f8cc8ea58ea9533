"""Build the raw columns of every node type and relation of a block, from their tables and from derived values."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from gnn.join import derived as formulas
from gnn.join import edges as topology
from gnn.join.block import Block
from gnn.join.columns import Derived, Mix, View, gather
from gnn.join.edges import Edges
from gnn.join.joined import Group
from gnn.join.packets import STATE, first_finite
from gnn.join.rows import Bools, Floats, Ints, Labels, lengths
from gnn.join.sites import Sites
from gnn.join.state import SEED_TABLE
from schemas.features import NODE_TYPES, Relation

_NODES: Final = {node.name: node for node in NODE_TYPES}


def node_groups(block: Block, drawn: Mapping[str, Edges]) -> dict[str, Group]:
    """Return the raw columns of every node type; `drawn` holds the edges of layer_connects and seed_monitors."""
    layers = _layer(block)
    positions = topology.layer_positions(block, drawn["layer_connects"])
    found = {
        "layer": layers,
        "seed": _seed(block, layers, positions, drawn["seed_monitors"]),
        "activation": _element(block, "activation", {}),
        "parameter": _element(block, "parameter", {}),
        "blueprint": _blueprint(block),
        "context": _context(block, layers, positions),
    }
    return {node.name: found[node.name] for node in NODE_TYPES}


def _element_views(block: Block, name: str, packet: Ints, static: Ints, telemetry: Ints) -> dict[str, View]:
    views = block.packet_views(packet)
    views[f"urza.{name}"] = View(block.nodes[name].elements.rows, static)
    views[f"tolaria.{name}_telemetry"] = View(block.telemetry[name], telemetry)
    return views


def _element(block: Block, name: str, extra: Derived) -> Group:
    nodes = block.nodes[name]
    views = _element_views(block, name, nodes.packet, nodes.static, nodes.telemetry)
    return _nodes(name, views, extra, nodes.packet, nodes.ptr, nodes.names, nodes.placeholder)


def _nodes(
    name: str,
    views: Mapping[str, View],
    extra: Derived,
    packet: Ints,
    ptr: Ints,
    names: Labels,
    placeholder: Bools | None = None,
) -> Group:
    """Return the nodes of one type; if `placeholder` is None, no node is a placeholder."""
    marks = np.zeros(len(packet), dtype=np.bool_) if placeholder is None else placeholder
    return Group(_NODES[name], gather(_NODES[name], len(packet), views, extra, marks), packet, ptr, marks, names)


def _layer(block: Block) -> Group:
    nodes = block.nodes["layer"]
    packets, telemetry = block.packets.rows, block.telemetry["layer"]

    def live(name: str) -> Floats:
        return first_finite(telemetry.numbers(name)[nodes.telemetry], packets.numbers(name)[nodes.packet])

    trace = block.traces["gradient_norm"]
    variance = telemetry.numbers("gradient_variance")[nodes.telemetry]
    extra: dict[str, Floats | Labels] = {
        "gradient_instability": formulas.gradient_instability(
            live("gradient_norm"), variance, trace.mean[nodes.packet], trace.count[nodes.packet]
        ),
        "latency_budget_utilisation": formulas.latency_budget_utilisation(live("hook_latency_ms"), live("latency_budget_ms")),
    }
    return _element(block, "layer", extra)


def _seed(block: Block, layers: Group, positions: Ints, monitors: Edges) -> Group:
    seeds = block.seeds
    views = block.seed_views(np.arange(seeds.size))
    sheet = views["urabrask.bsds"]
    extra = {
        "monitoring_scope": formulas.monitoring_scope(seeds.rows.lists("monitored_layers"), seeds.row),
        "has_handling_notes": formulas.has_handling_notes(sheet.source.labels("recommendation"), sheet.rows),
        **_of_sites(_sites(block, layers, positions, monitors), layers),
    }
    return _nodes("seed", views, extra, seeds.packet, seeds.ptr, block.seed_names)


def _sites(block: Block, layers: Group, positions: Ints, monitors: Edges) -> Sites:
    """Return the seeds' sites; guard tensors don't count as layers of a site."""

    def make() -> Sites:
        real = ~layers.placeholder[monitors.target]
        of_graph = lengths(layers.ptr)[block.seeds.packet]
        return Sites.of(block.seeds.packet, monitors.source[real], monitors.target[real], positions, of_graph)

    if block.packets.size != 1:
        return make()
    ends = (monitors.source.tobytes(), monitors.target.tobytes(), positions.tobytes())
    return block.metadata.once(("sites", block.nodes["layer"], block.seeds.size, *ends), make)


def _of_sites(sites: Sites, layers: Group) -> dict[str, Floats]:
    """Return the features derived from the place of each seed."""
    return {
        "relative_depth": formulas.relative_depth(sites),
        "sites_before": formulas.sites_before(sites),
        "sites_after": formulas.sites_after(sites),
        "is_first": formulas.is_first(sites),
        "is_last": formulas.is_last(sites),
        "has_norm": formulas.has_norm(sites, layers.columns.labels["layer_type"]),
        "site_channels": formulas.site_channels(sites, layers.columns.numbers["output_channels"]),
    }


def _blueprint(block: Block) -> Group:
    nodes = block.blueprints
    views = block.blueprint_views(nodes.code, nodes.packet)
    views[STATE] = View(block.packets.rows, np.where(nodes.attached < 0, nodes.packet, -1))
    views[SEED_TABLE] = View(block.seeds.rows, nodes.attached)
    return _nodes("blueprint", views, {}, nodes.packet, nodes.ptr, nodes.names)


def _context(block: Block, layers: Group, positions: Ints) -> Group:
    packets, losses = block.packets, block.losses
    everyone = np.arange(packets.size)
    views = block.packet_views(everyone)
    views["weatherlight.health"] = View(block.metadata.health, block.metadata.health_rows(packets.times))
    numbers = packets.rows.numbers
    trace = block.traces["loss"]
    extra: dict[str, Floats | Labels | Mix] = {
        "rolling_loss": formulas.rolling_loss(numbers("loss")[:-1], trace.mean, trace.count),
        "conservative_mode": block.metadata.conservative(packets.times),
        "latency_budget_utilisation": formulas.latency_budget_utilisation(
            numbers("hook_latency_ms")[:-1], numbers("latency_budget_ms")[:-1]
        ),
        "training_loss": losses.now["training_loss"],
        "generalisation_gap": formulas.generalisation_gap(losses.now["validation_loss"], losses.now["training_loss"]),
        **{f"{name}_change": formulas.loss_change(losses.now[name], losses.before[name]) for name in losses.now},
        "output_classes": formulas.output_classes(layers.columns.numbers["output_channels"], positions, layers.ptr),
        "layer_type_shares": formulas.layer_type_shares(layers.columns.labels["layer_type"], layers.ptr),
    }
    names = packets.rows.labels("packet_id").take(everyone)
    return _nodes("context", views, extra, everyone, np.arange(packets.size + 1), names)


def edge_group(relation: Relation, block: Block, nodes: Mapping[str, Group], drawn: Mapping[str, Edges]) -> Group:
    """Return a relation's raw columns; `nodes` are the block's node groups, `drawn` the edges already found for them."""
    if relation.short in drawn:
        return _DRAWN[relation.short](block, relation, drawn[relation.short])
    return _EDGES[relation.short](block, relation, nodes)


def _group(
    relation: Relation, edges: Edges, views: Mapping[str, View], extra: Derived | None = None, placeholder: Bools | None = None
) -> Group:
    marks = np.zeros(len(edges.packet), dtype=np.bool_) if placeholder is None else placeholder
    columns = gather(relation, len(edges.packet), views, extra or {}, marks)
    return Group(relation, columns, edges.packet, edges.ptr, marks, edges=edges)


def _connects(block: Block, relation: Relation, edges: Edges) -> Group:
    views = block.packet_views(edges.packet)
    views["urza.connection"] = View(block.metadata.catalogue.connections, edges.rows["urza"])
    views["tolaria.connection_telemetry"] = View(block.connections, edges.rows["telemetry"])
    placeholder = block.nodes["layer"].placeholder
    return _group(relation, edges, views, placeholder=placeholder[edges.source] | placeholder[edges.target])


def _of_activation(block: Block, relation: Relation, nodes: Mapping[str, Group]) -> Group:
    edges = topology.declared(block, relation.short, relation.source, relation.target)
    activation = edges.source if relation.source == "activation" else edges.target
    return _of_element(block, relation, edges, "activation", activation)


def _of_element(block: Block, relation: Relation, edges: Edges, name: str, node: Ints) -> Group:
    """Return edges whose attributes are those of the element `node` at one of their ends."""
    nodes = block.nodes[name]
    views = _element_views(block, name, edges.packet, nodes.static[node], nodes.telemetry[node])
    return _group(relation, edges, views, placeholder=nodes.placeholder[node])


def _influence(block: Block, relation: Relation, nodes: Mapping[str, Group]) -> Group:
    edges = topology.declared(block, relation.short, relation.source, relation.target)
    activation = edges.source if relation.source == "activation" else edges.target
    views = block.packet_views(edges.packet)
    views["urza.activation_parameter"] = View(block.metadata.catalogue.influences, edges.rows["attributes"])
    return _group(relation, edges, views, placeholder=block.nodes["activation"].placeholder[activation])


def _targets(block: Block, relation: Relation, nodes: Mapping[str, Group]) -> Group:
    edges = topology.targets(block)
    return _of_element(block, relation, edges, "parameter", edges.source)


def _tunes(block: Block, relation: Relation, nodes: Mapping[str, Group]) -> Group:
    edges = topology.declared(block, relation.short, "parameter", "layer")
    return _of_element(block, relation, edges, "parameter", edges.source)


def _monitors(block: Block, relation: Relation, edges: Edges) -> Group:
    seed = edges.source
    own = block.seeds.rows.numbers("adaptation_trigger_threshold")[block.seeds.row[seed]]
    noted = block.metadata.seed_notes.thresholds[block.seed_entries[seed]]
    extra = {"adaptation_trigger_threshold": formulas.adaptation_trigger_threshold(own, noted)}
    return _group(relation, edges, block.seed_views(seed), extra)


def _allowed(block: Block, relation: Relation, nodes: Mapping[str, Group]) -> Group:
    edges = topology.allowed(block, nodes["parameter"].columns.labels["optimizer_family"])
    return _group(relation, edges, block.seed_views(edges.source))


def _broadcast(block: Block, relation: Relation, nodes: Mapping[str, Group]) -> Group:
    edges = topology.broadcast(block, nodes[relation.target].ptr)
    context = nodes["context"].columns
    extra = {feature.name: context.numbers[feature.name][edges.packet] for feature in relation.features}
    return _group(relation, edges, block.packet_views(edges.packet), extra)


_DRAWN: Final[Mapping[str, Callable[[Block, Relation, Edges], Group]]] = {
    "layer_connects": _connects,
    "seed_monitors": _monitors,
}
_EDGES: Final[Mapping[str, Callable[[Block, Relation, Mapping[str, Group]], Group]]] = {
    "layer_activates": _of_activation,
    "activation_affects": _of_activation,
    "activation_configures": _influence,
    "parameter_modulates": _influence,
    "parameter_targets": _targets,
    "parameter_tunes": _tunes,
    "seed_allowed": _allowed,
    "context_layer": _broadcast,
    "context_seed": _broadcast,
}
