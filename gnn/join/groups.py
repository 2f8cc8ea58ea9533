"""The raw columns of every node type and relation of a block: which tables describe its elements, and what is derived."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from gnn.join import derived as formulas
from gnn.join import edges as topology
from gnn.join.block import Block
from gnn.join.columns import Derived, View, gather
from gnn.join.edges import Edges
from gnn.join.joined import Group
from gnn.join.packets import STATE, first_finite
from gnn.join.rows import Bools, Floats, Ints, Labels
from gnn.join.state import SEED_TABLE
from schemas.features import NODE_TYPES, Relation

_NODES: Final = {node.name: node for node in NODE_TYPES}


def node_groups(block: Block) -> dict[str, Group]:
    """Every node type's raw columns."""
    builders: Mapping[str, Callable[[Block], Group]] = {
        "layer": _layer,
        "seed": _seed,
        "activation": lambda b: _element(b, "activation", {}),
        "parameter": lambda b: _element(b, "parameter", {}),
        "blueprint": _blueprint,
        "context": _context,
    }
    return {node.name: builders[node.name](block) for node in NODE_TYPES}


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
    """The nodes of one type; `placeholder` None: none is one."""
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


def _seed(block: Block) -> Group:
    seeds = block.seeds
    views = block.seed_views(np.arange(seeds.size))
    sheet = views["urabrask.bsds"]
    extra = {
        "monitoring_scope": formulas.monitoring_scope(seeds.rows.lists("monitored_layers"), seeds.row),
        "has_handling_notes": formulas.has_handling_notes(sheet.source.labels("recommendation"), sheet.rows),
    }
    return _nodes("seed", views, extra, seeds.packet, seeds.ptr, block.seed_names)


def _blueprint(block: Block) -> Group:
    nodes = block.blueprints
    views = block.blueprint_views(nodes.code, nodes.packet)
    views[STATE] = View(block.packets.rows, np.where(nodes.attached < 0, nodes.packet, -1))
    views[SEED_TABLE] = View(block.seeds.rows, nodes.attached)
    return _nodes("blueprint", views, {}, nodes.packet, nodes.ptr, nodes.names)


def _context(block: Block) -> Group:
    packets = block.packets
    everyone = np.arange(packets.size)
    views = block.packet_views(everyone)
    views["weatherlight.health"] = View(block.metadata.health, block.metadata.health_rows(packets.times))
    numbers = packets.rows.numbers
    trace = block.traces["loss"]
    extra = {
        "rolling_loss": formulas.rolling_loss(numbers("loss")[:-1], trace.mean, trace.count),
        "conservative_mode": block.metadata.conservative(packets.times),
        "latency_budget_utilisation": formulas.latency_budget_utilisation(
            numbers("hook_latency_ms")[:-1], numbers("latency_budget_ms")[:-1]
        ),
    }
    names = packets.rows.labels("packet_id").take(everyone)
    return _nodes("context", views, extra, everyone, np.arange(packets.size + 1), names)


def edge_group(relation: Relation, block: Block, nodes: Mapping[str, Group]) -> Group:
    """A relation's raw columns; `nodes` are the block's node groups."""
    return _EDGES[relation.short](block, relation, nodes)


def _group(
    relation: Relation, edges: Edges, views: Mapping[str, View], extra: Derived | None = None, placeholder: Bools | None = None
) -> Group:
    marks = np.zeros(len(edges.packet), dtype=np.bool_) if placeholder is None else placeholder
    columns = gather(relation, len(edges.packet), views, extra or {}, marks)
    return Group(relation, columns, edges.packet, edges.ptr, marks, edges=edges)


def _connects(block: Block, relation: Relation, nodes: Mapping[str, Group]) -> Group:
    edges = topology.connects(block)
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
    """Edges whose attributes are measured on one of their ends, an element."""
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


def _monitors(block: Block, relation: Relation, nodes: Mapping[str, Group]) -> Group:
    edges = topology.monitors(block)
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


_EDGES: Final[Mapping[str, Callable[[Block, Relation, Mapping[str, Group]], Group]]] = {
    "layer_connects": _connects,
    "layer_activates": _of_activation,
    "activation_affects": _of_activation,
    "activation_configures": _influence,
    "parameter_modulates": _influence,
    "parameter_targets": _targets,
    "parameter_tunes": _tunes,
    "seed_monitors": _monitors,
    "seed_allowed": _allowed,
    "context_layer": _broadcast,
    "context_seed": _broadcast,
}
