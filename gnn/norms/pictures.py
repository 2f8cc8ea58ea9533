"""Draw registries and norms for the metadata of their assets, as PNG; equal data gives equal bytes."""

import io
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from schemas.artifacts import EWMA_PRIORS, RegistryRecord
from schemas.features import EWMA_METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI: Final = 80
_RUNS_SHOWN: Final = 200


def growth(name: str, record: RegistryRecord) -> bytes:
    """Return the PNG of a registry's size by version, with a line at its capacity if that is near."""
    from matplotlib.figure import Figure

    sizes = np.cumsum([len(version.added) for version in record.versions])
    figure = Figure(figsize=(4.5, 2.2), layout="constrained")
    axes = figure.add_subplot()
    axes.step([version.version for version in record.versions], sizes, where="post", marker="o", markersize=3)
    last = record.capacity - 2
    if record.size > last / 4:
        axes.axhline(last, color="tab:red", linewidth=1, label=f"last index {last}")
        axes.legend(fontsize=7)
    axes.set(xlabel="version", ylabel="entries", title=f"{name}: {record.size} of {last}")
    axes.set_ylim(bottom=0)
    return _png(figure)


def bands(rows: pa.Table) -> bytes:
    """Return the PNG of each EWMA metric's mean ± one standard deviation after each run's last packet, beside the prior.

    `rows` are of `norms.ewma`. It shows the newest runs by their last observation; a metric's panel leaves out runs without
    an observation of it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    for place, metric in enumerate(EWMA_METRICS):
        axes = figure.add_subplot(2, 2, place + 1)
        own = [row for row in rows.to_pylist() if row["metric"] == metric and row["timestamp_ns"] is not None]
        own.sort(key=lambda row: (row["timestamp_ns"], row["training_run_id"]))
        shown = own[-_RUNS_SHOWN:]
        mean = np.array([row["mean"] for row in shown])
        spread = np.sqrt(np.array([row["var"] for row in shown]))
        axes.axhline(EWMA_PRIORS[metric][0], color="tab:gray", linewidth=1, linestyle="--", label="prior mean")
        axes.errorbar(np.arange(len(shown)), mean, yerr=spread, fmt="o", markersize=2, linewidth=0.8, label="mean ± sd")
        axes.set(title=f"{metric}: {len(own)} runs", xlabel="run, by its last observation")
        axes.legend(fontsize=7)
    return _png(figure)


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
