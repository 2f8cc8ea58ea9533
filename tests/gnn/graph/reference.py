"""The design's words as plain Python, one packet and one element at a time: slow, readable, and independent of the encoders.

Nothing here shares code with `gnn.features` but the declaration's order of features and the registries' entries.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pyarrow as pa

from schemas.artifacts import EWMA_PRIORS, PriorNorm
from schemas.contracts import TABLES
from schemas.digest import row_digests

Row = dict[str, Any]
Values = dict[str, Any]


@dataclass
class Element:
    """A node or an edge: its id (for an edge the places of its ends) and the raw value of each feature, None missing."""

    id: Any
    values: Values
    hollow: bool = False


@dataclass
class Graph:
    """One packet's graph: elements in order, and the run's EWMA state before the packet."""

    packet: Row
    nodes: dict[str, list[Element]] = field(default_factory=dict)
    edges: dict[str, list[Element]] = field(default_factory=dict)
    ewma: dict[str, tuple[float, float, int]] = field(default_factory=dict)
    before: Row | None = None  # the run's packet before


def number(value: Any) -> float | None:
    """A finite number, or None."""
    return float(value) if value is not None and math.isfinite(float(value)) else None


def first(*choices: Any) -> Any:
    """The first choice that is not None."""
    return next((choice for choice in choices if choice is not None), None)


def newest(rows: Iterable[Row], time: Callable[[Row], int | None], now: int, rank: Callable[[Row], Any]) -> Row | None:
    """The newest row not newer than `now`; at equal time the highest rank."""
    best: Row | None = None
    for row in rows:
        at = time(row)
        if at is not None and at > now:
            continue
        key = (-math.inf if at is None else at, rank(row))
        if best is None or key > (-math.inf if time(best) is None else time(best), rank(best)):
            best = row
    return best


class Reference:
    """All graphs of some contract tables."""

    def __init__(self, tables: dict[str, pa.Table]) -> None:
        self.rows = {name: tables[name].to_pylist() if name in tables else [] for name in TABLES}
        state = tables.get("tolaria.system_state")
        self.digests = row_digests(state) if state is not None and state.num_rows else []

    def graphs(self) -> list[Graph]:
        """Graphs in order of run, time and packet digest."""
        packets: dict[Any, tuple[Any, Row]] = {}
        for row, digest in zip(self.rows["tolaria.system_state"], self.digests, strict=True):
            if not row["is_completion"]:
                order = (row["training_run_id"], row["timestamp_ns"], digest)
                key = (row["training_run_id"], row["packet_id"], row["timestamp_ns"])
                packets[key] = min(packets.get(key, (order, row)), (order, row), key=lambda pair: pair[0])
        found, states, before = [], {}, {}
        for _, row in sorted(packets.values(), key=lambda pair: pair[0]):
            run = row["training_run_id"]
            state = states.setdefault(run, {m: (mean, sd * sd, 0) for m, (mean, sd) in EWMA_PRIORS.items()})
            found.append(self.graph(row, dict(state), before.get(run)))
            before[run] = row
            for metric in EWMA_PRIORS:
                value = self.metric(row, metric)
                if value is not None:
                    mean, var, count = state[metric]
                    jump = value - mean
                    state[metric] = (mean + 0.1 * jump, 0.9 * (var + 0.1 * jump * jump), count + 1)
        return found

    def metric(self, packet: Row, name: str) -> float | None:
        """A step metric."""
        metrics = dict(packet["training_metrics"] or [])
        value = number(metrics.get(name))
        if name == "loss":
            return first(value, number(packet["training_loss"]), number(packet["validation_loss"]))
        return value

    def of_packet(self, table: str, packet: Row) -> list[Row]:
        keys = ("training_run_id", "packet_id", "timestamp_ns")
        return [row for row in self.rows[table] if all(row[key] == packet[key] for key in keys)]

    def urza(self, table: str, blueprint: str | None) -> list[Row]:
        return [row for row in self.rows[f"urza.{table}"] if blueprint and row["blueprint_id"] == blueprint]

    def sheet(self, blueprint: str | None, now: int) -> Row | None:
        rows = [row for row in self.rows["urabrask.bsds"] if blueprint and row["blueprint_id"] == blueprint]
        stream = [row for row in rows if row["source"] != "urza" and row["issued_at_ns"] <= now]
        own = stream or [row for row in rows if row["source"] == "urza"]
        return newest(own, lambda row: row["issued_at_ns"], now, lambda row: row["source"] == "bsds")

    def kernel(self, blueprint: str | None, now: int) -> Row | None:
        order = ("urza", "event", "update")
        rows = [row for row in self.rows["tezzeret.kernel"] if blueprint and row["blueprint_id"] == blueprint]

        def rank(row: Row) -> Any:
            arrival = row["arrival"] if row["issued_at_ns"] is None else 0
            return (arrival, order.index(row["source"]))

        return newest(rows, lambda row: row["issued_at_ns"], now, rank)

    def graph(self, packet: Row, ewma: dict[str, tuple[float, float, int]], before: Row | None) -> Graph:
        """The graph of one packet."""
        graph = Graph(packet, ewma=ewma, before=before)
        self.now, self.host = packet["timestamp_ns"], packet["blueprint_id"]
        graph.nodes["layer"] = self.layers(graph)
        graph.nodes["activation"] = self.activations(graph)
        graph.nodes["parameter"] = self.parameters(graph)
        graph.nodes["seed"] = self.seeds(graph)
        graph.nodes["blueprint"] = self.blueprints(graph)
        graph.nodes["context"] = [self.context(graph)]
        for short, make in (
            ("layer_connects", self.connects),
            ("layer_activates", self.activates),
            ("activation_affects", self.affects),
            ("activation_configures", self.configures),
            ("parameter_modulates", self.modulates),
            ("parameter_targets", self.targets),
            ("parameter_tunes", self.tunes),
            ("seed_monitors", self.monitors),
            ("seed_allowed", self.allowed),
        ):
            unique = {edge.id: edge for edge in reversed(make(graph))}
            graph.edges[short] = sorted(unique.values(), key=lambda edge: (edge.id[1], edge.id[0]))
        self.add_places(graph)
        broadcast = {n: graph.nodes["context"][0].values[n] for n in ("latency_budget_utilisation", "conservative_mode")}
        for target in ("layer", "seed"):
            places = range(len(graph.nodes[target]))
            graph.edges[f"context_{target}"] = [Element((0, place), dict(broadcast)) for place in places]
        return graph

    def add_places(self, graph: Graph) -> None:
        """What follows from the order of the layers: of the context its classes and types, of each seed its site."""
        layers, context = graph.nodes["layer"], graph.nodes["context"][0]
        order = topological([edge.id for edge in graph.edges["layer_connects"]], len(layers))
        shown = [{} if layer.hollow else layer.values for layer in layers]
        types = [values.get("layer_type") for values in shown]
        context.values["output_classes"] = shown[order[-1]].get("output_channels") if order else None
        context.values["layer_type_shares"] = types if any(types) else None
        sites = []
        for place in range(len(graph.nodes["seed"])):
            mine = [edge.id[1] for edge in graph.edges["seed_monitors"] if edge.id[0] == place]
            sites.append(sorted((layer for layer in mine if not layers[layer].hollow), key=order.index))
        depths = [Fraction(sum(map(order.index, site)), len(site) * len(layers)) if site else None for site in sites]
        known = [depth for depth in depths if depth is not None]
        for seed, site, depth in zip(graph.nodes["seed"], sites, depths, strict=True):
            named = [types[layer] for layer in site if types[layer]]
            seed.values["has_norm"] = any("norm" in name.lower() for name in named) if named else None
            seed.values["site_channels"] = shown[site[-1]].get("output_channels") if site else None
            before = None if depth is None else sum(other < depth for other in known)
            after = None if depth is None else sum(other > depth for other in known)
            seed.values |= {"relative_depth": depth, "sites_before": before, "sites_after": after}
            seed.values |= {"is_first": None if before is None else not before, "is_last": None if after is None else not after}

    def losses(self, packet: Row | None) -> tuple[float | None, float | None]:
        """Validation and training loss of a packet."""
        if packet is None:
            return None, None
        sent = dict(packet["training_metrics"] or [])
        return number(packet["validation_loss"]), first(number(packet["training_loss"]), number(sent.get("loss")))

    def elements(self, graph: Graph, name: str) -> list[tuple[str, Row, Row]]:
        """(id, Urza's row, telemetry row) of each element of a type; {} where there is none."""
        sent = {row[f"{name}_id"]: row for row in reversed(self.of_packet(f"tolaria.{name}_telemetry", graph.packet))}
        own = {row[f"{name}_id"]: row for row in reversed(self.urza(name, self.host))}
        if own:
            ordered = sorted(own.values(), key=lambda row: (row["index"], row[f"{name}_id"]))
            return [(row[f"{name}_id"], row, sent.get(row[f"{name}_id"], {})) for row in ordered]
        return [(key, {}, sent[key]) for key in sorted(sent)]

    def layers(self, graph: Graph) -> list[Element]:
        sheet = self.sheet(self.host, self.now) or {}
        record = first(*self.urza("blueprint", self.host)[:1]) or {}
        found = []
        for key, urza, sent in self.elements(graph, "layer"):

            def live(name: str, sent: Row = sent) -> float | None:
                return first(number(sent.get(name)), self.metric(graph.packet, name))

            values: Values = {
                "layer_type": urza.get("type"),
                "input_channels": number(urza.get("input_channels")),
                "output_channels": number(urza.get("output_channels")),
                "activation_type": urza.get("activation_type"),
                "dropout_rate": number(urza.get("dropout_rate")),
                "weight_norm": first(number(sent.get("weight_norm")), number(urza.get("weight_norm"))),
                "update_frequency": number(sent.get("update_frequency")),
                "loss": live("loss"),
                "gradient_norm": live("gradient_norm"),
                "samples_per_s": live("samples_per_s"),
                "hook_latency_ms": live("hook_latency_ms"),
                "bsds_risk_score": number(sheet.get("risk_score")),
                "hazard_band": sheet.get("hazard_band"),
                "handling_class": sheet.get("handling_class"),
                "grafting_strategies": sheet.get("grafting_strategies"),
                "resource_tier": first(record.get("resource_tier"), sheet.get("resource_profile")),
                "gradient_variance": number(sent.get("gradient_variance")),
                "latency_budget_utilisation": share(live("hook_latency_ms"), live("latency_budget_ms")),
            }
            mean, _, count = graph.ewma["gradient_norm"]
            values["gradient_instability"] = instability(values["gradient_norm"], values["gradient_variance"], mean, count)
            found.append(Element(key, values, bool(urza.get("is_placeholder"))))
        return found

    def activations(self, graph: Graph) -> list[Element]:
        found = []
        for key, urza, sent in self.elements(graph, "activation"):
            values = {
                "activation_type": urza.get("type"),
                "saturation_rate": first(number(sent.get("saturation_rate")), number(urza.get("saturation_rate"))),
                "gradient_flow": first(number(sent.get("gradient_flow")), number(urza.get("gradient_flow"))),
                "computational_cost": number(urza.get("computational_cost")),
                "saturation_events": number(sent.get("saturation_events")),
                "stability": number(sent.get("stability")),
            }
            found.append(Element(key, values, bool(urza.get("is_placeholder"))))
        return found

    def parameters(self, graph: Graph) -> list[Element]:
        record = first(*self.urza("blueprint", self.host)[:1]) or {}
        sheet = self.sheet(self.host, self.now) or {}
        kernel = self.kernel(self.host, self.now) or {}
        found = []
        for key, urza, sent in self.elements(graph, "parameter"):
            values: Values = {"parameter_count": number(urza.get("parameter_count"))}
            for name in ("learning_rate", "momentum", "gradient_variance"):
                values[name] = first(number(sent.get(name)), number(record.get(f"optimizer_{name}")))
            values["optimizer_family"] = first(sent.get("optimizer_family"), record.get("optimizer_family"))
            values["convergence_rate"] = number(sent.get("convergence_rate"))
            values["update_magnitude"] = number(sent.get("update_magnitude"))
            values["compile_status"] = kernel.get("status")
            values["resource_profile"] = sheet.get("resource_profile")
            values["cooldown_ms"] = number(sheet.get("cooldown_ms"))
            found.append(Element(key, values))
        return found

    def seed_rows(self, graph: Graph) -> list[Row]:
        """The newest state of each seed of the run, in order of id."""
        own = [row for row in self.rows["kasmina.seed_state"] if row["training_run_id"] == graph.packet["training_run_id"]]
        found = []
        for seed in sorted({row["seed_id"] for row in own}):
            states = [row for row in own if row["seed_id"] == seed]
            row = newest(states, lambda row: row["timestamp_ns"], self.now, lambda row: row["source"] == "export")
            if row is not None and row["timestamp_ns"] <= self.now:
                found.append(row)
        return found

    def seeds(self, graph: Graph) -> list[Element]:
        found = []
        for row in self.seed_rows(graph):
            record = first(*self.urza("blueprint", row["blueprint_id"])[:1]) or {}
            sheet = self.sheet(row["blueprint_id"], self.now)
            values: Values = {
                "seed_id": row["seed_id"],
                "monitoring_scope": None if row["monitored_layers"] is None else float(len(row["monitored_layers"])),
                "lifecycle_stage": row["stage"],
                "alpha_schedule": row["alpha_schedule_method"],
                "alpha_total_steps": number(row["alpha_schedule_total_steps"]),
                "alpha_temperature": number(row["alpha_schedule_temperature"]),
                "quarantine_only": first(row["quarantine_only"], record.get("descriptor_quarantine_only")),
                "blueprint_tier": record.get("descriptor_tier"),
                "bsds_risk_score": number((sheet or {}).get("risk_score")),
                "has_handling_notes": None if sheet is None else sheet["recommendation"] is not None,
            }
            values |= {name: row[name] for name in ("policy_version",)}
            values["layer_depth"] = number(row["layer_depth"])
            values |= {n: number(row[n]) for n in ("activity_level", "success_rate", "risk_tolerance", "alpha")}
            lists = ("allowed_blending_methods", "allowed_optimizer_families", "isolation_exemptions")
            values |= {name: row[f"capabilities_{name}"] for name in lists}
            values |= {name: (sheet or {}).get(name) for name in ("hazard_band", "handling_class", "grafting_strategies")}
            found.append(Element(row["seed_id"], values))
        return found

    def blueprints(self, graph: Graph) -> list[Element]:
        attached = sorted({row["blueprint_id"] for row in self.seed_rows(graph) if row["blueprint_id"]} - {self.host})
        found = []
        for key in [*([self.host] if self.host else []), *attached]:
            record = first(*self.urza("blueprint", key)[:1]) or {}
            sheet = self.sheet(key, self.now) or {}
            values = {
                "blueprint_id": key,
                "tier": record.get("descriptor_tier"),
                "hazard_band": sheet.get("hazard_band"),
                "risk": first(number(sheet.get("risk_score")), number(record.get("descriptor_risk"))),
                "stage": number(record.get("descriptor_stage")),
                "quarantine_only": record.get("descriptor_quarantine_only"),
                "approval_required": record.get("descriptor_approval_required"),
            }
            found.append(Element(key, values))
        return found

    def context(self, graph: Graph) -> Element:
        packet = graph.packet
        health = newest(self.rows["weatherlight.health"], lambda row: row["timestamp_ns"], self.now, lambda row: 0) or {}
        if health and health["timestamp_ns"] > self.now:
            health = {}
        loss, (mean, _, count) = self.metric(packet, "loss"), graph.ewma["loss"]
        used = number(packet["hardware_context_utilization_percent"])
        device = packet["hardware_context_device_type"]
        values = {
            "rolling_loss": mean if count else loss,
            "throughput": self.metric(packet, "samples_per_s"),
            "gpu_utilisation": first(
                used if device == "cuda" else None,
                self.metric(packet, "gpu_util_percent"),
                number(health.get("gpu_utilisation")),
            ),
            "cpu_utilisation": first(
                used if device == "cpu" else None,
                self.metric(packet, "cpu_util_percent"),
                number(health.get("cpu_utilisation")),
            ),
            "conservative_mode": self.conservative(),
            "health_status": health.get("status"),
            "unhealthy_indicators": number(health.get("unhealthy_indicators")),
            "sla_breaches": number(health.get("sla_breaches")),
            "latency_budget_utilisation": share(
                self.metric(packet, "hook_latency_ms"), self.metric(packet, "latency_budget_ms")
            ),
        }
        (validation, training), (earlier_validation, earlier_training) = self.losses(packet), self.losses(graph.before)
        values |= {
            "validation_loss": validation,
            "training_loss": training,
            "validation_accuracy": number(packet["validation_accuracy"]),
            "generalisation_gap": ln_ratio(validation, training),
            "validation_loss_change": ln_ratio(validation, earlier_validation),
            "training_loss_change": ln_ratio(training, earlier_training),
            "epoch": number(packet["current_epoch"]),
        }
        return Element(packet["packet_id"], values)

    def conservative(self) -> bool | None:
        said = [(r["timestamp_ns"], r["conservative_mode"]) for r in self.rows["weatherlight.health"]]
        said += [
            (r["timestamp_ns"], r["value"] != 0)
            for r in self.rows["telemetry.metric"]
            if r["name"] == "tamiyo.conservative_mode"
        ]
        known = [(time, bool(mode)) for time, mode in said if mode is not None and time <= self.now]
        return max(known)[1] if known else None

    def place(self, graph: Graph, node_type: str, key: str | None) -> int | None:
        """Row of a node by its id."""
        ids = [element.id for element in graph.nodes[node_type]]
        return ids.index(key) if key in ids else None

    def connects(self, graph: Graph) -> list[Element]:
        sent = {
            (row["source_layer_id"], row["target_layer_id"]): row
            for row in reversed(self.of_packet("tolaria.connection_telemetry", graph.packet))
        }
        urza = self.urza("layer", self.host)
        pairs = (
            {(row["source_layer_id"], row["target_layer_id"]): row for row in reversed(self.urza("connection", self.host))}
            if urza
            else {pair: {} for pair in sent}
        )
        found = []
        for (source, target), row in pairs.items():
            ends = (self.place(graph, "layer", source), self.place(graph, "layer", target))
            if None not in ends:
                telemetry = sent.get((source, target), {})
                values = {
                    "connection_strength": number(row.get("connection_strength")),
                    "data_flow_volume": number(telemetry.get("data_flow_volume")),
                    "latency_ms": number(telemetry.get("latency_ms")),
                    "residual_flag": row.get("residual_flag"),
                }
                hollow = any(graph.nodes["layer"][end].hollow for end in ends if end is not None)
                found.append(Element(ends, values, hollow))
        return found

    def layer_of(self, graph: Graph) -> list[tuple[int, int, Row, bool]]:
        """(activation, layer, telemetry, hollow) of each activation of Urza's graph whose layer is there."""
        found = []
        for place, (_, urza, sent) in enumerate(self.elements(graph, "activation")):
            declared = {row["layer_id"] for row in self.urza("layer", self.host)}
            layer = self.place(graph, "layer", urza.get("layer_id")) if urza.get("layer_id") in declared else None
            if layer is not None:
                merged = {**sent, "urza_nonlinearity": urza.get("nonlinearity_strength")}
                found.append((place, layer, merged, bool(urza["is_placeholder"])))
        return found

    def activates(self, graph: Graph) -> list[Element]:
        return [
            Element((layer, place), {n: number(sent.get(n)) for n in ("activation_frequency", "saturation_events")}, hollow)
            for place, layer, sent, hollow in self.layer_of(graph)
        ]

    def affects(self, graph: Graph) -> list[Element]:
        found = []
        for place, layer, sent, hollow in self.layer_of(graph):
            successors = [edge.id[1] for edge in graph.edges["layer_connects"] if edge.id[0] == layer]
            values = {
                "gradient_contribution": number(sent.get("gradient_contribution")),
                "nonlinearity_strength": first(number(sent.get("nonlinearity_strength")), number(sent["urza_nonlinearity"])),
            }
            found += [Element((place, target), dict(values), hollow) for target in successors or [layer]]
        return found

    def influences(self, graph: Graph) -> list[tuple[int, int, Row, bool]]:
        found = []
        for row in self.urza("activation_parameter", self.host):
            declared = {r["activation_id"] for r in self.urza("activation", self.host)}
            groups = {r["parameter_id"] for r in self.urza("parameter", self.host)}
            if row["activation_id"] in declared and row["parameter_id"] in groups:
                activation = self.place(graph, "activation", row["activation_id"])
                parameter = self.place(graph, "parameter", row["parameter_id"])
                assert activation is not None
                assert parameter is not None
                found.append((activation, parameter, row, graph.nodes["activation"][activation].hollow))
        return found

    def configures(self, graph: Graph) -> list[Element]:
        return [Element((a, p), {"influence": number(row["influence"])}, h) for a, p, row, h in self.influences(graph)]

    def modulates(self, graph: Graph) -> list[Element]:
        return [
            Element((p, a), {"magnitude": number(row["magnitude"]), "effect": number(row["effect"])}, h)
            for a, p, row, h in self.influences(graph)
        ]

    def targets(self, graph: Graph) -> list[Element]:
        rows = enumerate(self.elements(graph, "parameter"))
        return [Element((place, 0), {"target": urza["target"]}) for place, (_, urza, _) in rows if urza]

    def tunes(self, graph: Graph) -> list[Element]:
        found = []
        declared = {row["layer_id"] for row in self.urza("layer", self.host)}
        for place, (_, urza, sent) in enumerate(self.elements(graph, "parameter")):
            for layer in urza.get("layer_ids") or []:
                if layer in declared:
                    values = {n: number(sent.get(n)) for n in ("update_magnitude", "convergence_rate")}
                    found.append(Element((place, self.place(graph, "layer", layer)), values))
        return found

    def notes(self, graph: Graph, place: int, seed: str) -> tuple[list[str], float | None]:
        """Urza's monitored layers and threshold of a seed: under its id, else under its position."""
        record = first(*self.urza("blueprint", self.host)[:1]) or {}
        monitors, thresholds = record.get("monitors") or [], dict(record.get("monitor_thresholds") or [])
        named = {entry["seed"] for entry in monitors} | set(thresholds)
        key = next((name for name in (seed, str(place)) if name in named), None)
        return [entry["layer_id"] for entry in monitors if entry["seed"] == key], thresholds.get(key)

    def monitors(self, graph: Graph) -> list[Element]:
        found = []
        for place, row in enumerate(self.seed_rows(graph)):
            said, threshold = self.notes(graph, place, row["seed_id"])
            values = {
                "monitoring_frequency": number(row["monitoring_frequency"]),
                "adaptation_trigger_threshold": first(number(row["adaptation_trigger_threshold"]), threshold),
                "quarantine_flag": graph.nodes["seed"][place].values["quarantine_only"],
            }
            for layer in row["monitored_layers"] or said:
                target = self.place(graph, "layer", layer)
                if target is not None:
                    found.append(Element((place, target), dict(values)))
        return found

    def allowed(self, graph: Graph) -> list[Element]:
        found = []
        for place, row in enumerate(self.seed_rows(graph)):
            families = row["capabilities_allowed_optimizer_families"]
            values = {"blending_methods": row["capabilities_allowed_blending_methods"], "optimizer_families": families}
            for target, parameter in enumerate(graph.nodes["parameter"]):
                family = parameter.values["optimizer_family"]
                if families is not None and family and family.lower() in {name.lower() for name in families}:
                    found.append(Element((place, target), dict(values)))
        return found


def ln_ratio(value: float | None, other: float | None) -> float | None:
    """ln(value / other), None unless both are above 0."""
    return math.log(value / other) if value is not None and other is not None and value > 0 and other > 0 else None


def topological(edges: list[tuple[int, int]], size: int) -> list[int]:
    """Nodes in order: the lowest of those that wait for nobody, else (in a cycle) the lowest."""
    order: list[int] = []
    while len(order) < size:
        left = [node for node in range(size) if node not in order]
        free = [n for n in left if not any(b == n and a != n and a in left for a, b in edges)]
        order.append(min(free or left))
    return order


def share(latency: float | None, budget: float | None) -> float | None:
    """latency / budget, None where unknown or not finite."""
    return None if latency is None or not budget else latency / budget


def instability(norm: float | None, variance: float | None, mean: float, count: int) -> str | None:
    """The class of a gradient."""
    if norm is None or not count:
        return None
    ratio = norm / mean if mean else math.copysign(math.inf, norm)
    if ratio > 10:
        return "exploding"
    if ratio < 0.1:
        return "vanishing"
    if variance is not None and variance >= 0 and norm and math.sqrt(variance) / norm > 1:
        return "noisy"
    return "stable"


def transformed(name: str, value: float, metric: str | None, graph: Graph, priors: dict[str, PriorNorm]) -> float | None:
    """One transform of features.md; None outside its domain. `graph_max` is the caller's."""
    try:
        if name == "ewma":
            mean, var, _ = graph.ewma[str(metric)]
            return (value - mean) / math.sqrt(var + 1e-6)
        if name == "log_z":
            prior = priors[str(metric)]
            return ((math.log1p(value) if prior.transform == "log1p" else value) - prior.mean) / math.sqrt(prior.var)
        classes = graph.nodes["context"][0].values["output_classes"]
        chance = math.log(classes) if classes is not None and classes > 1 else 1.0
        return {
            "identity": lambda: value,
            "ln_chance": lambda: min(max(math.log(value / chance), -8.0), 4.0),
            "clamp_abs1": lambda: min(max(value, -1.0), 1.0),
            "clamp_abs3": lambda: min(max(value, -3.0), 3.0),
            "clamp01": lambda: min(max(value, 0.0), 1.0),
            "clamp4": lambda: min(max(value, 0.0), 4.0),
            "log1p": lambda: math.log1p(value),
            "signed_log1p": lambda: math.copysign(math.log1p(abs(value)), value),
            "log_var": lambda: math.log10(value + 1e-12),
            "loss_prior": lambda: (value - 0.8) / 0.3,
            "percent": lambda: min(max(value / 100, 0.0), 1.0),
        }[name]()
    except ValueError:
        return None
