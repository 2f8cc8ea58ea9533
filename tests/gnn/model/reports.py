"""Hand-made contract rows of packets, commands and field reports for the model's tests."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from schemas.contracts import TABLES


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of that contract table, NULL where a row does not say."""
    schema = TABLES[name].arrow_schema
    columns = {f.name: pa.array([row.get(f.name) for row in rows], type=f.type) for f in schema}
    return pa.table(columns, schema=schema)


def packet(run: str = "run-1", packet_id: str = "p-1", host: str = "host-1", **more: Any) -> dict[str, Any]:
    """A state of that run."""
    row = {"training_run_id": run, "packet_id": packet_id, "timestamp_ns": 1, "blueprint_id": host}
    return row | {"experiment_name": "digits/mlp", "is_completion": False} | more


def command(command_id: str = "c-1", method: str | None = "linear", **more: Any) -> dict[str, Any]:
    """A command with its blending method, if any."""
    annotations = [("blending_method", method)] if method is not None else []
    return {"command_id": command_id, "annotations": annotations} | more


def report(
    report_id: str = "r-1",
    metrics: Mapping[str, float | None] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A report of base loss 1.0, control 0.9 and treated 0.8 after 50 steps."""
    row: dict[str, Any] = {"training_run_id": "run-1", "report_id": report_id, "issued_at_ns": 2, "command_id": "c-1"}
    row |= {"packet_id": "p-1", "seed_id": "s-1", "layer_id": "l-1", "blueprint_id": "kernel-affine", "non_finite": []}
    row |= {"base_loss": 1.0, "control_delta": -0.1, "treated_delta": -0.2}
    values = {"horizon_steps": 50.0, "replicate": 0.0} | dict(metrics or {})
    row["metrics"] = [(name, value) for name, value in values.items() if value is not None]
    return row | more


def sources(
    reports: list[dict[str, Any]],
    packets: list[dict[str, Any]] | None = None,
    commands: list[dict[str, Any]] | None = None,
) -> dict[str, pa.Table]:
    """The three tables that examples are made from."""
    return {
        "tamiyo.field_report": table("tamiyo.field_report", reports),
        "tamiyo.command": table("tamiyo.command", [command()] if commands is None else commands),
        "tolaria.system_state": table("tolaria.system_state", [packet()] if packets is None else packets),
    }
