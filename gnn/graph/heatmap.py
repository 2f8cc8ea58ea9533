"""Coverage as pictures, PNG: every key against every training run, and each family from run to run."""

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
    return _png(figure)


def trend(by_family: pa.Table) -> bytes:
    """PNG of rows of `coverage.by_family`: each family's coverage from run to run, in the order of the runs' names.

    Families that are whole in every run share one line, so that what falls is seen; a run without elements is a hole.
    """
    from matplotlib.figure import Figure

    runs = sorted(set(by_family.column("training_run_id").to_pylist()))
    place = {run: number for number, run in enumerate(runs)}
    lines: dict[str, np.ndarray] = {}
    for row in by_family.to_pylist():
        line = lines.setdefault(row["family"], np.full(len(runs), np.nan))
        line[place[row["training_run_id"]]] = np.nan if row["ratio"] is None else row["ratio"]
    whole = [family for family, line in lines.items() if np.nanmin(line, initial=1.0) >= 1.0]
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for family in sorted(lines.keys() - set(whole)):
        axes.plot(range(len(runs)), lines[family], marker="o", markersize=2, linewidth=1, label=family)
    if whole:
        axes.axhline(1.0, color="tab:gray", linewidth=1, linestyle="--", label=f"{len(whole)} whole families")
    axes.set(xlabel="training run, by name", ylabel="measured / elements", ylim=(0.0, 1.05), title="Coverage by family")
    if lines:
        axes.legend(fontsize=7, loc="lower left")
    return _png(figure)


def _png(figure: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

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
