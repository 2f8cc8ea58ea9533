"""A served bundle, one host's packets, and the metadata around them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gnn.bundle import read_bundle
from gnn.bundle.read import Bundle
from gnn.online.snapshot import Snapshot
from schemas.kernels import KERNELS
from schemas.leyline import leyline_pb2 as pb
from tests.gnn.bundle.conftest import Home, published, trained  # noqa: F401 - fixtures
from tests.gnn.tables import tables

START = 1_700_000_000_000_000_000


def packet(step: int = 0, *, seeds: int = 2, stage: int = pb.SEED_STAGE_DORMANT, **more: Any) -> pb.SystemStatePacket:
    """A state of run-1: two layers, `seeds` seeds that each monitor one of them."""
    found = pb.SystemStatePacket(
        version=1,
        packet_id=f"p-{step}",
        training_run_id="run-1",
        timestamp_ns=START + step * 10**9,
        blueprint_id="host-1",
        training_loss=0.9,
        validation_loss=0.8,
        training_metrics={"loss": 0.9 - 0.01 * step, "gradient_norm": 1.5, "samples_per_s": 4000.0, "hook_latency_ms": 5.0},
    )
    for number in range(2):
        found.layers.add(layer_id=f"layer-{number}", loss=0.9, gradient_norm=1.0)
    for number in range(seeds):
        seed = found.seed_states.add(seed_id=f"seed-{number + 1}", stage=stage, alpha=0.0, timestamp_ns=START)
        seed.monitored_layers.append(f"layer-{number % 2}")
    for name, value in more.items():
        setattr(found, name, value)
    return found


def metadata_tables(**sheets: dict[str, Any]) -> dict[str, pa.Table]:
    """The host's layers and a sheet of it, and one `kernel` -> fields for each of `sheets`."""
    rows: list[dict[str, Any]] = [
        {"blueprint_id": "host-1", "issued_at_ns": START - 5, "source": "bsds", "risk_score": 0.25, "hazard_band": "LOW",
         "handling_class": "STANDARD", "resource_profile": "CPU", "provenance": "HEURISTIC"}
    ]  # fmt: skip
    for name, fields in sheets.items():
        rows.append({"blueprint_id": name.replace("_", "-"), "issued_at_ns": START - 5, "source": "bsds"} | fields)
    kinds = ("linear", "conv2d")
    return tables(
        urza__blueprint=[{"blueprint_id": name} for name in ("host-1", *KERNELS)],
        urza__layer=[
            {"blueprint_id": "host-1", "index": i, "layer_id": f"layer-{i}", "type": kind, "input_channels": 8,
             "output_channels": 8, "activation_type": "none"} for i, kind in enumerate(kinds)
        ],
        urabrask__bsds=rows,
    )  # fmt: skip


@pytest.fixture(scope="session")
def bundle(published: Home) -> Bundle:  # noqa: F811
    found = read_bundle(published.path / "bundles" / published.inputs().build_id)
    policy = found.manifest.policy.model_copy(
        update={"measured": list(KERNELS[:6]), "site_kernels": {"linear": list(KERNELS[:3]), "conv2d": list(KERNELS[3:8])}}
    )
    return replace(found, manifest=found.manifest.model_copy(update={"policy": policy}))


@pytest.fixture
def snapshot(bundle: Bundle) -> Snapshot:
    return Snapshot.of(bundle, metadata_tables(), START)


@pytest.fixture
def bundle_path(published: Home) -> Path:  # noqa: F811
    return published.path / "bundles" / published.inputs().build_id
