"""Compute what the policy's grafts gained, from the tables of a home: each is measured against the same host without it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gnn.model.bootstrap import HostBootstrap, Interval
from gnn.model.examples import uplift

ISSUER: Final = "tamiyo"
DIVERGED: Final = -1.0  # gain in nats of a graft whose loss is no longer finite
_DRAWS: Final = 2000
_SEED: Final = 7


@dataclass(frozen=True)
class Gain:
    """Grafts of one bundle, or of all: the mean gain in nats of validation loss, with its 95 % interval over hosts."""

    grafts: int
    hosts: int
    better: int
    diverged: int
    gain: Interval

    def __str__(self) -> str:
        """Return one line of text."""
        if not self.grafts:
            return "no graft was measured"
        gain = self.gain
        return (
            f"{gain.mean:+.4f} nats (95 % over hosts: {gain.low:+.4f} .. {gain.high:+.4f}), {self.grafts} grafts on "
            f"{self.hosts} hosts, {self.better} of them better than without, {self.diverged} diverged"
        )


def gains(commands: pa.Table, reports: pa.Table, horizon: int) -> Mapping[str, Gain]:
    """Return the gain of Tamiyo's commands by build id; the empty key holds the gain of all of them.

    `commands` and `reports` are rows of `tamiyo.command` and `tamiyo.field_report`; replicates of a graft are averaged first.
    """
    own = commands.filter(pc.equal(commands["issued_by"], ISSUER))
    builds = pc.map_lookup(own["annotations"], pa.scalar("build_id"), "first").to_pylist()
    build_of = dict(zip(own["command_id"].to_pylist(), builds, strict=True))
    steps = pc.map_lookup(reports["metrics"], pa.scalar("horizon_steps"), "first")
    at = reports.filter(pc.fill_null(pc.equal(steps, float(horizon)), False))
    names = ("base_loss", "control_delta", "treated_delta")
    base, control, treated = (at[name].cast(pa.float64()).fill_null(np.nan).to_numpy() for name in names)
    u = uplift(base, control, treated).tolist()
    by_command: dict[str, list[float]] = {}
    host_of: dict[str, str] = {}
    rows = zip(at["command_id"].to_pylist(), at["training_run_id"].to_pylist(), u, strict=True)
    for command, run, value in rows:
        if command in build_of:
            by_command.setdefault(command, []).append(value)
            host_of[command] = run
    builds_seen = sorted({build_of[command] or "" for command in by_command} - {""})
    return {
        build: _gain({c: v for c, v in by_command.items() if not build or build_of[c] == build}, host_of)
        for build in ("", *builds_seen)
    }


def _gain(by_command: Mapping[str, list[float]], host_of: Mapping[str, str]) -> Gain:
    raw = np.array([np.mean(values) for values in by_command.values()], dtype=np.float64)
    values = np.where(np.isfinite(raw), raw, DIVERGED)
    hosts = np.array([host_of[command] for command in by_command], dtype=str)
    boot = HostBootstrap(hosts, _DRAWS, _SEED)
    interval = boot.ratio(values, np.ones_like(values), boot.places(hosts)).interval if len(values) else Interval(0.0, 0.0, 0.0)
    return Gain(len(values), len(np.unique(hosts)), int((values > 0).sum()), int((~np.isfinite(raw)).sum()), interval)
