"""Coverage as a picture: every key against every training run, as a PNG."""

import io
from typing import Any, Final

import numpy as np
import pyarrow as pa

_MOST_RUNS: Final = 60


def heat_map(by_key: pa.Table, title: str = "Coverage by key and training run") -> bytes:
    """PNG of rows of `coverage.by_key`: green measured, red missing, white where a run has no element of the key.

    Keys stand in their order in the table, mandatory ones in bold; of more than 60 runs the last 60 by name are shown.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    keys, runs, ratios, mandatory = _matrix(by_key)
    figure = Figure(figsize=(5.5 + 0.22 * len(runs), 1.5 + 0.17 * len(keys)), layout="constrained")
    axes = figure.add_subplot()
    colours = colormaps["RdYlGn"].with_extremes(bad="white")
    image = axes.imshow(np.ma.masked_invalid(ratios), aspect="auto", cmap=colours, vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set_yticks(range(len(keys)), keys, fontsize=6)
    for label, required in zip(axes.get_yticklabels(), mandatory, strict=True):
        label.set_fontweight("bold" if required else "normal")
    axes.set_xticks(range(len(runs)), runs, rotation=90, fontsize=6)
    axes.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axes, label="measured / elements", shrink=0.4)
    buffer = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _matrix(by_key: pa.Table) -> tuple[list[str], list[str], np.ndarray, list[bool]]:
    """Keys, runs, ratios float64 [keys, runs] (NaN without elements), and which keys are mandatory."""
    rows = by_key.select(["training_run_id", "key", "mandatory", "ratio"]).to_pylist()
    runs = sorted({row["training_run_id"] for row in rows})[-_MOST_RUNS:]
    required = {row["key"]: bool(row["mandatory"]) for row in rows}
    keys = list(required)
    ratios = np.full((max(len(keys), 1), max(len(runs), 1)), np.nan)
    place, column = {key: n for n, key in enumerate(keys)}, {run: n for n, run in enumerate(runs)}
    for row in rows:
        if row["ratio"] is not None and row["training_run_id"] in column:
            ratios[place[row["key"]], column[row["training_run_id"]]] = row["ratio"]
    return keys, runs, ratios, list(required.values())
