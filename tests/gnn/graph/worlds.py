"""Random worlds: contract tables of several runs with everything that real ones have, and with what goes wrong in them."""

from typing import Any

import numpy as np
import pyarrow as pa

from gnn.registry.refresh import Registries
from tests.gnn.tables import START, Row, registries, table

SECOND = 10**9
LAYERS = ("fc1", "fc2", "conv", "norm", "head")
TYPES = ("linear", "conv", "attention", "BatchNorm")
ACTIVATIONS = ("act1", "act2", "act3")
PARAMETERS = ("group0", "group1")
HOSTS = ("host-a", "host-b", "host-mock")
KERNELS = ("kernel-linear", "kernel-scale", "kernel-lost")
SEEDS = ("seed-1", "seed-2", "seed-3")
FAMILIES = ("sgd", "AdamW", "lion")
METHODS = ("linear", "cosine", "slow")


def world_registries() -> Registries:
    """Registries that know most, not all, of the worlds' words."""
    return registries(
        layer_type=["linear", "conv"],
        activation_type=["relu", "none"],
        seed=["seed-1", "seed-2"],
        blueprint=["host-a", "host-b", "kernel-linear"],
        parameter_target=["weights"],
        policy_version=["v1"],
        isolation_exemption=["memory"],
        grafting_strategy=[f"strategy-{n}" for n in range(40)],
    )


class World:
    """Draws one world from a seed; `messy` adds dangling, duplicate and late rows, odd numbers and missing tables."""

    def __init__(self, seed: int, *, messy: bool = True, runs: int = 3, steps: int = 4) -> None:
        self._random = np.random.default_rng(seed)
        self._messy = messy
        self._runs = [f"run-{n}" for n in range(runs)]
        self._steps = steps

    def _chance(self, share: float) -> bool:
        return bool(self._random.random() < share)

    def _maybe(self, value: Any, share: float = 0.8) -> Any:
        return value if self._chance(share) else None

    def _one(self, options: tuple[str, ...]) -> str:
        return options[int(self._random.integers(len(options)))]

    def _some(self, options: tuple[str, ...], share: float = 0.6) -> list[str]:
        return [option for option in options if self._chance(share)]

    def _number(self, scale: float = 1.0) -> float | None:
        if self._messy and self._chance(0.05):
            return float(self._random.choice([-1.0, -2.5, 0.0, 1e30]))
        return float(np.float32(self._random.gamma(2.0, scale))) if self._chance(0.8) else None

    def tables(self) -> dict[str, pa.Table]:
        """Contract tables by name."""
        packets = [row for run in self._runs for row in self._packets(run)]
        rows: dict[str, list[Row]] = {"tolaria.system_state": packets}
        rows |= self._telemetry([row for row in packets if not row["is_completion"]])
        rows["kasmina.seed_state"] = [row for run in self._runs for row in self._seeds(run)]
        rows |= self._urza()
        rows["urabrask.bsds"] = self._sheets()
        rows["tezzeret.kernel"] = self._kernels()
        rows |= self._health()
        if self._messy and self._chance(0.2):
            rows.pop(self._one(tuple(rows)))
        return {name: self._shuffled(table(name, own)) for name, own in rows.items()}

    def _shuffled(self, rows: pa.Table) -> pa.Table:
        """Rows in any order, in a messy world some of them twice."""
        order = self._random.permutation(rows.num_rows)
        if self._messy:
            order = np.concatenate([order, order[self._random.random(len(order)) < 0.1]])
        return rows.take(pa.array(order))

    def _time(self, step: float) -> int:
        return START + int(step * SECOND)

    def _packets(self, run: str) -> list[Row]:
        host = self._maybe(self._one((*HOSTS, "host-lost")), 0.9)
        found = []
        for step in range(self._steps):
            names = ("loss", "gradient_norm", "samples_per_s", "hook_latency_ms", "latency_budget_ms", "cpu_util_percent")
            metrics = [(name, value) for name in names if (value := self._number(2.0)) is not None]
            twin = self._messy and step > 0 and self._chance(0.2)
            found.append(
                {
                    "training_run_id": run,
                    "packet_id": f"packet-{step}",
                    "timestamp_ns": self._time(step - 1 if twin else step),
                    "global_step": step,
                    "is_completion": self._chance(0.05),
                    "blueprint_id": host,
                    "training_loss": self._number(),
                    "validation_loss": self._number(),
                    "validation_accuracy": self._number(0.3),
                    "current_epoch": self._maybe(int(self._random.integers(0, 9))),
                    "training_metrics": self._maybe(metrics, 0.95),
                    "hardware_context_device_type": self._maybe(self._one(("cpu", "cuda"))),
                    "hardware_context_utilization_percent": self._number(40.0),
                }
            )
        return found

    def _of(self, packet: Row) -> Row:
        return {name: packet[name] for name in ("training_run_id", "packet_id", "timestamp_ns", "global_step")}

    def _telemetry(self, packets: list[Row]) -> dict[str, list[Row]]:
        ghost = ("ghost",) if self._messy else ()
        columns = {
            "layer": ("loss gradient_norm gradient_variance weight_norm samples_per_s hook_latency_ms latency_budget_ms "
                      "update_frequency", (*LAYERS, *ghost)),
            "activation": ("saturation_rate saturation_events gradient_flow gradient_contribution nonlinearity_strength "
                           "stability activation_frequency", (*ACTIVATIONS, *ghost)),
            "parameter": ("learning_rate momentum gradient_variance convergence_rate update_magnitude", (*PARAMETERS, *ghost)),
        }  # fmt: skip
        found: dict[str, list[Row]] = {}
        for name, (numbers, ids) in columns.items():
            found[f"tolaria.{name}_telemetry"] = [
                self._of(packet) | {f"{name}_id": element} | {column: self._number() for column in numbers.split()}
                for packet in packets
                for element in self._some(ids)
            ]
        for row in found["tolaria.parameter_telemetry"]:
            row["optimizer_family"] = self._maybe(self._one(FAMILIES))
        found["tolaria.connection_telemetry"] = [
            self._of(packet) | {"source_layer_id": source, "target_layer_id": target, "data_flow_volume": self._number(50.0)}
            | {"latency_ms": self._number()}
            for packet in packets
            for source in (*LAYERS, *ghost)
            for target in LAYERS
            if self._chance(0.15)
        ]  # fmt: skip
        return found

    def _seeds(self, run: str) -> list[Row]:
        found = []
        for seed in SEEDS:
            times = {float(t) for t in self._random.integers(-1, self._steps + 2, size=3)}
            for time in sorted(times):
                for source in ("export", "packet") if self._chance(0.3) else (self._one(("export", "packet")),):
                    found.append(self._seed(run, seed, time, source))
        return found

    def _seed(self, run: str, seed: str, time: float, source: str) -> Row:
        known = self._chance(0.8)
        return {
            "training_run_id": run,
            "seed_id": seed,
            "timestamp_ns": self._time(time),
            "source": source,
            "stage": self._maybe(self._one(("TRAINING", "DORMANT", "77"))),
            "blueprint_id": self._maybe(self._one((*KERNELS, "host-a"))),
            "layer_depth": self._maybe(int(self._random.integers(0, 9))),
            "monitored_layers": self._some((*LAYERS, "lost")) or None,
            "monitoring_frequency": self._number(),
            "adaptation_trigger_threshold": self._maybe(self._number()),
            "activity_level": self._number(),
            "success_rate": self._number(),
            "risk_tolerance": self._number(),
            "alpha": self._number(),
            "alpha_schedule_method": self._maybe(self._one(METHODS)),
            "alpha_schedule_total_steps": self._maybe(int(self._random.integers(1, 50))),
            "alpha_schedule_temperature": self._number(),
            "quarantine_only": self._maybe(self._chance(0.5)),
            "policy_version": self._maybe(self._one(("v1", "v2"))),
            "capabilities_allowed_blending_methods": self._some(METHODS) if known else None,
            "capabilities_allowed_optimizer_families": self._some(("SGD", "adamw", "lion")) if known else None,
            "capabilities_isolation_exemptions": self._some(("memory", "time")) if known else None,
        }

    def _urza(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        hosts = [host for host in HOSTS if not self._messy or self._chance(0.9)]
        found["urza.blueprint"] = [self._blueprint(name) for name in (*hosts, *KERNELS[:2])]
        graphs = [host for host in hosts if not self._messy or self._chance(0.85)]
        found["urza.layer"] = [
            {
                "blueprint_id": host,
                "index": index,
                "layer_id": layer,
                "type": "guard_tensor" if host == "host-mock" else self._maybe(self._one(TYPES)),
                "input_channels": self._maybe(int(self._random.integers(0, 64))),
                "output_channels": self._maybe(int(self._random.integers(1, 64))),
                "activation_type": self._maybe(self._one(("relu", "none", "gelu"))),
                "dropout_rate": self._number(0.1),
                "weight_norm": self._number(),
                "is_placeholder": host == "host-mock",
            }
            for host in graphs
            for index, layer in enumerate(self._some(LAYERS, 0.8))
        ]
        found["urza.activation"] = [
            {
                "blueprint_id": host,
                "index": index,
                "activation_id": name,
                "type": self._maybe(self._one(("relu", "gelu"))),
                "layer_id": self._maybe(self._one((*LAYERS, "lost")), 0.9),
                "saturation_rate": self._number(0.2),
                "gradient_flow": self._number(),
                "computational_cost": self._number(100.0),
                "nonlinearity_strength": self._number(),
                "is_placeholder": host == "host-mock",
            }
            for host in graphs
            for index, name in enumerate(self._some(ACTIVATIONS, 0.8))
        ]
        found["urza.parameter"] = [
            {
                "blueprint_id": host,
                "index": index,
                "parameter_id": name,
                "parameter_count": self._maybe(int(self._random.integers(0, 10**6))),
                "layer_ids": self._maybe(self._some((*LAYERS, "lost"))),
                "target": self._maybe(self._one(("weights", "bias"))),
            }
            for host in graphs
            for index, name in enumerate(self._some(PARAMETERS, 0.9))
        ]
        return found | self._links(graphs)

    def _links(self, graphs: list[str]) -> dict[str, list[Row]]:
        ghost = ("lost",) if self._messy else ()
        return {
            "urza.connection": [
                {"blueprint_id": host, "source_layer_id": source, "target_layer_id": target}
                | {"connection_strength": self._maybe(float(self._random.normal())), "residual_flag": self._maybe(True)}
                for host in graphs
                for source in (*LAYERS, *ghost)
                for target in LAYERS
                if self._chance(0.3)
            ],
            "urza.activation_parameter": [
                {"blueprint_id": host, "activation_id": activation, "parameter_id": parameter}
                | {"influence": self._number(0.3), "magnitude": self._number(), "effect": self._maybe(-0.5)}
                for host in graphs
                for activation in (*ACTIVATIONS, *ghost)
                for parameter in PARAMETERS
                if self._chance(0.5)
            ],
        }

    def _blueprint(self, name: str) -> Row:
        monitors = [{"seed": seed, "layer_id": self._one((*LAYERS, "lost")), "weight": None} for seed in ("seed-1", "1", "2")]
        return {
            "blueprint_id": name,
            "descriptor_tier": self._maybe(self._one(("SAFE", "EXPERIMENTAL"))),
            "descriptor_risk": self._number(0.2),
            "descriptor_stage": self._maybe(int(self._random.integers(0, 4))),
            "descriptor_quarantine_only": self._maybe(self._chance(0.5)),
            "descriptor_approval_required": self._maybe(self._chance(0.5)),
            "optimizer_family": self._maybe(self._one(FAMILIES)),
            "optimizer_learning_rate": self._number(0.05),
            "optimizer_momentum": self._number(0.5),
            "optimizer_gradient_variance": self._number(0.01),
            "resource_tier": self._maybe(self._one(("CPU", "GPU")), 0.5),
            "monitors": self._maybe(monitors, 0.5),
            "monitor_thresholds": self._maybe([("seed-1", 0.5), ("2", 0.25)], 0.5),
        }

    def _sheets(self) -> list[Row]:
        return [
            {
                "blueprint_id": name,
                "issued_at_ns": self._time(float(step)),
                "source": source,
                "risk_score": self._number(0.3),
                "hazard_band": self._maybe(self._one(("LOW", "HIGH", "9"))),
                "handling_class": self._maybe(self._one(("STANDARD", "QUARANTINE"))),
                "resource_profile": self._maybe(self._one(("CPU", "MIXED"))),
                "recommendation": self._maybe("slowly", 0.5),
                "grafting_strategies": self._maybe([f"strategy-{n}" for n in self._random.integers(0, 45, size=3)], 0.6),
                "cooldown_ms": self._number(10.0),
            }
            for name in (*HOSTS, *KERNELS)
            for step in range(-2, self._steps + 1)
            for source in ("bsds", "issued", "urza")
            if self._chance(0.2)
        ]

    def _kernels(self) -> list[Row]:
        return [
            {
                "blueprint_id": name,
                "issued_at_ns": self._maybe(self._time(float(step)), 0.7),
                "source": source,
                "status": self._maybe(self._one(("COMPILED", "EAGER_FALLBACK", "FAILED"))),
                "arrival": int(self._random.integers(10**6)),
            }
            for name in HOSTS
            for step in range(-1, self._steps)
            for source in ("update", "urza", "event")
            if self._chance(0.2)
        ]

    def _health(self) -> dict[str, list[Row]]:
        return {
            "weatherlight.health": [
                {
                    "packet_id": f"w{step}",
                    "timestamp_ns": self._time(step + 0.5),
                    "status": self._maybe(self._one(("HEALTHY", "CRITICAL"))),
                    "unhealthy_indicators": self._maybe(int(self._random.integers(0, 4))),
                    "sla_breaches": self._number(),
                    "cpu_utilisation": self._number(30.0),
                    "gpu_utilisation": self._number(60.0),
                    "conservative_mode": self._maybe(self._chance(0.5), 0.6),
                }
                for step in range(-1, self._steps)
                if self._chance(0.6)
            ],
            "telemetry.metric": [
                {"packet_id": f"t{step}", "index": 0, "timestamp_ns": self._time(step), "source": "tamiyo", "value": mode}
                | {"name": self._one(("tamiyo.conservative_mode", "other"))}
                for step, mode in enumerate((1.0, 0.0, 1.0, 0.0))
                if self._chance(0.5)
            ],
        }
