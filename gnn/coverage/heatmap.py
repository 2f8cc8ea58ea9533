"""Draw coverage as PNG: a heat map of keys by training run, and the trend of each family from run to run."""

import io
import math
from functools import cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.features import COVERAGE_KEYS

MOST_RUNS: Final = 60
_MOST_POINTS: Final = 500
_LONGEST: Final = 48  # characters of a label
_CELL: Final = (18, 15)  # width and height in pixels
_FONT_PIXELS: Final = 11
_GAP: Final = 6
_MARGIN: Final = 28


def heat_map(by_key: pa.Table, title: str = "Coverage by key and training run") -> bytes:
    """Return the PNG of rows of `coverage.by_key`: green is measured, red missing, white a run without elements of the key.

    Keys are in declared order, with mandatory ones in black. If there are more than 60 runs, the last 60 by name are shown.
    Pillow draws it, because a plotting library needs most of a second for the labels alone.
    """
    from PIL import Image, ImageDraw

    keys, runs, ratios, mandatory = _matrix(by_key)
    left, bottom = (max((_width(name) for name in names), default=0) + 2 * _GAP for names in (keys, runs))
    width, height = _CELL[0] * len(runs), _CELL[1] * len(keys)
    picture = Image.new("RGB", (left + width + _MARGIN, _MARGIN + height + bottom), "white")
    cells = Image.fromarray(_coloured(ratios)).resize((max(width, 1), max(height, 1)), Image.Resampling.NEAREST)
    picture.paste(cells, (left, _MARGIN))
    draw = ImageDraw.Draw(picture)
    draw.text((left, _GAP), f"{title} (of the elements, measured: red 0, yellow 0.5, green 1)", "black", _font())
    for place, (key, required) in enumerate(zip(keys, mandatory, strict=True)):
        at = left - _GAP - _width(key), _MARGIN + place * _CELL[1]
        draw.text(at, _label(key), "black" if required else "dimgray", _font())
    for place, run in enumerate(runs):
        upright = Image.new("RGB", (_width(run), _CELL[1]), "white")
        ImageDraw.Draw(upright).text((0, 0), _label(run), "black", _font())
        picture.paste(upright.rotate(90, expand=True), (left + place * _CELL[0] + 2, _MARGIN + height + _GAP))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _coloured(ratios: np.ndarray) -> np.ndarray:
    """Return the RGB colours of ratios, uint8 [keys, runs, 3]: from red through yellow to green, white for NaN."""
    stops = np.array([(215, 48, 39), (255, 255, 191), (26, 152, 80)])
    channels = [np.interp(np.nan_to_num(ratios), (0.0, 0.5, 1.0), stops[:, channel]) for channel in range(3)]
    return np.where(np.isnan(ratios)[..., None], 255, np.stack(channels, axis=-1)).astype(np.uint8)


@cache
def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(_FONT_PIXELS)


def _label(name: str) -> str:
    """Return the name on one line, cut to `_LONGEST` characters, with control characters escaped."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _width(name: str) -> int:
    """Return the width of a label in pixels, at least 1."""
    return math.ceil(_font().getlength(_label(name))) or 1


def trend(by_family: pa.Table) -> bytes:
    """Return the PNG of rows of `coverage.by_family`: each family's coverage from run to run, in order of the runs' names.

    Families that are complete in every run share one line, so that falling ones stand out. A run without elements leaves a
    gap in the line.
    """
    from matplotlib.figure import Figure

    runs = sorted(by_family.column("training_run_id").unique().to_pylist())[-_MOST_POINTS:]
    by_family = by_family.filter(pc.is_in(by_family.column("training_run_id"), value_set=pa.array(runs, pa.string())))
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
    """Return keys, runs, ratios (float64 [keys, runs], NaN without elements), and which keys are mandatory."""
    runs = sorted(by_key.column("training_run_id").unique().to_pylist())[-MOST_RUNS:]
    shown = by_key.filter(pc.is_in(by_key.column("training_run_id"), value_set=pa.array(runs, pa.string())))
    rows = shown.select(["training_run_id", "key", "mandatory", "ratio"]).to_pylist()
    order = {key: place for place, key in enumerate(COVERAGE_KEYS)}
    required = {row["key"]: bool(row["mandatory"]) for row in sorted(rows, key=lambda row: order.get(row["key"], len(order)))}
    keys = list(required)
    ratios = np.full((max(len(keys), 1), max(len(runs), 1)), np.nan)
    place, column = {key: n for n, key in enumerate(keys)}, {run: n for n, run in enumerate(runs)}
    for row in rows:
        if row["ratio"] is not None and row["training_run_id"] in column:
            ratios[place[row["key"]], column[row["training_run_id"]]] = row["ratio"]
    return keys, runs, ratios, list(required.values())
