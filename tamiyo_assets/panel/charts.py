"""Draw the panel's charts as inline SVG. Every text is escaped; colours are the page's CSS variables."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from markupsafe import Markup

from schemas.printable import shown
from tamiyo_assets.panel.facts import Build, CoveragePoint, Interval, Rebuild, Run

_NAMES_WIDTH: Final = 215
_ROW: Final = 22
_PLOT_WIDTH: Final = 780
_STEPS: Final = ((1.0, "c0"), (0.95, "c1"), (0.70, "c2"), (0.30, "c3"), (0.0, "c4"))  # lowest ratio of each class of a cell
_LOWEST_SHOWN: Final = -1.5


class Scale(NamedTuple):
    """A linear scale from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the pixel of a value; a value beyond an end is drawn at that end."""
        share = (value - self.low) / (self.high - self.low or 1.0)
        return round(self.start + min(max(share, 0.0), 1.0) * (self.end - self.start), 1)


def heat_map(runs: Sequence[Run]) -> Markup:
    """Draw families by training runs.

    The less was measured, the stronger the colour of a cell. A dot marks runs that lack a mandatory key.
    """
    families = list(runs[0].families)
    wide = max(12, min(64, (_PLOT_WIDTH - _NAMES_WIDTH) // len(runs)))
    width, height = _NAMES_WIDTH + wide * len(runs), _ROW * (len(families) + 1)
    parts = []
    for row, family in enumerate(families, start=1):
        parts.append(_text(_NAMES_WIDTH - 10, row * _ROW + 15, family, "end"))
    for column, run in enumerate(runs):
        x = _NAMES_WIDTH + column * wide
        if run.mandatory_missing:
            title = f"{run.run_id} lacks {', '.join(run.mandatory_missing)}"
            parts.append(_fill('<circle class="bad" cx="{}" cy="12" r="4">{}</circle>', x + wide / 2 - 1, _title(title)))
        for row, (family, ratio) in enumerate(run.families.items(), start=1):
            said = "no elements" if ratio is None else f"{ratio:.3f}"
            box = (x, row * _ROW, wide - 2, _ROW - 2, _class(ratio), _title(f"{run.run_id}, {family}: {said}"))
            parts.append(_fill('<rect x="{}" y="{}" width="{}" height="{}" rx="2" class="{}">{}</rect>', *box))
    return _svg(width, height, "Coverage by family and training run", parts)


def _class(ratio: float | None) -> str:
    return "none" if ratio is None else next(name for least, name in _STEPS if ratio >= least)


def model_figures(build: Build, names: Sequence[tuple[str, str]]) -> Markup:
    """Draw the gap closed of one build: a dot and its interval for the model and each baseline, the ceiling as a line."""
    scale = _scale([build], _NAMES_WIDTH + 10, _PLOT_WIDTH - 70)
    height = _ROW * len(names) + 34
    parts = [_tick(scale, value, height) for value in _ticks(scale)]
    if build.ceiling is not None:
        x = scale.at(build.ceiling)
        parts.append(_fill('<line class="ceiling" x1="{0}" x2="{0}" y1="4" y2="{1}"/>', x, height - 22))
    for row, (name, label) in enumerate(names):
        y, figure = row * _ROW + 16, build.gap_closed[name]
        kind = "model" if name == "model" else "other"
        parts.append(_text(_NAMES_WIDTH - 10, y + 4, label, "end", "strong" if name == "model" else ""))
        parts += _bar(scale, figure, y, kind)
        parts.append(_text(_PLOT_WIDTH, y + 4, f"{figure.mean:+.3f}", "end", "number"))
    return _svg(_PLOT_WIDTH, height, "Share of the gap closed by the model and its baselines, with 95 % intervals", parts)


def _bar(scale: Scale, figure: Interval, y: float, kind: str) -> list[Markup]:
    parts = []
    if figure.low is not None and figure.high is not None:
        ends = (scale.at(figure.low), scale.at(figure.high), y, kind)
        parts.append(_fill('<line class="range {3}" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>', *ends))
    parts.append(_fill('<circle class="{2}" cx="{0}" cy="{1}" r="5"/>', scale.at(figure.mean), y, kind))
    return parts


def builds_over_time(builds: Sequence[Build]) -> Markup:
    """Draw the gap closed over builds: the model with its interval, the best baseline of each build, the ceiling."""
    height, left = 220, 52
    scale = _scale([_headline(build) for build in builds], height - 34, 12)
    step = (_PLOT_WIDTH - left) / len(builds)
    parts = []
    for value in _ticks(scale):
        y = scale.at(value)
        parts.append(_fill('<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>', left, _PLOT_WIDTH, y))
        parts.append(_text(left - 8, y + 4, f"{value:+.1f}", "end"))
    for place, build in enumerate(builds):
        x = round(left + (place + 0.5) * step, 1)
        parts += _build_column(build, scale, x, step)
        parts.append(_text(x, height - 8, build.build_id[:6], "middle"))
    return _svg(_PLOT_WIDTH, height, "Share of the gap closed over builds", parts)


def _build_column(build: Build, scale: Scale, x: float, step: float) -> list[Markup]:
    parts, half = [], min(step / 3, 26)
    best = best_baseline(build)
    if build.ceiling is not None:
        ends = (round(x - half, 1), round(x + half, 1), scale.at(build.ceiling))
        parts.append(_fill('<line class="ceiling" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>', *ends))
    if best is not None:
        y = scale.at(build.gap_closed[best].mean)
        parts.append(_fill('<circle class="other" cx="{}" cy="{}" r="5">{}</circle>', round(x + half / 2, 1), y, _title(best)))
    model = build.gap_closed.get("model")
    if model is not None:
        if model.low is not None and model.high is not None:
            ends = (x, scale.at(model.low), scale.at(model.high))
            parts.append(_fill('<line class="range model" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>', *ends))
        title = _title(f"{build.build_id[:12]}: {model.mean:+.3f}")
        parts.append(_fill('<circle class="model" cx="{}" cy="{}" r="5.5">{}</circle>', x, scale.at(model.mean), title))
    return parts


def _headline(build: Build) -> Build:
    """Return the build with only the figures that are drawn over builds."""
    names = ("model", best_baseline(build))
    return replace(build, gap_closed={name: figure for name, figure in build.gap_closed.items() if name in names})


def best_baseline(build: Build) -> str | None:
    """Return the baseline that closed most of the gap; None if there is none."""
    others = {name: figure.mean for name, figure in build.gap_closed.items() if name not in ("model", "no_messages")}
    return max(others, key=lambda name: others[name], default=None)


def coverage_history(points: Sequence[CoveragePoint]) -> Markup:
    """Draw the mean coverage over rebuilds, and that of mandatory keys."""
    height, left = 160, 52
    means = [point.mean for point in points] + [point.mandatory for point in points if point.mandatory is not None]
    low = min(0.9, *means)
    scale = Scale(low, 1.0, height - 24, 12)
    step = (_PLOT_WIDTH - left - 12) / max(len(points) - 1, 1)
    parts = []
    for value in (low, (low + 1) / 2, 1.0):
        y = scale.at(value)
        parts.append(_fill('<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>', left, _PLOT_WIDTH, y))
        parts.append(_text(left - 8, y + 4, f"{value:.2f}", "end"))
    lines = (("other", [point.mean for point in points]), ("model", [point.mandatory for point in points]))
    for kind, values in lines:
        at = [(round(left + 6 + n * step, 1), scale.at(value)) for n, value in enumerate(values) if value is not None]
        parts.append(_fill('<polyline class="line {}" points="{}"/>', kind, " ".join(f"{x},{y}" for x, y in at)))
        parts += [_fill('<circle class="{}" cx="{}" cy="{}" r="3"/>', kind, x, y) for x, y in at]
    parts.append(_text(left, height - 4, f"{points[0].at:%Y-%m-%d %H:%M}", "start"))
    parts.append(_text(_PLOT_WIDTH, height - 4, f"{points[-1].at:%Y-%m-%d %H:%M}", "end"))
    return _svg(_PLOT_WIDTH, height, "Coverage over rebuilds", parts)


def rebuild_times(rebuilds: Sequence[Rebuild]) -> Markup:
    """Draw the seconds of the newest runs, oldest first; a run that failed stands out."""
    height, left = 150, 52
    longest = max(max(run.seconds for run in rebuilds), 1.0)
    scale = Scale(0.0, longest, height - 22, 14)
    step = min((_PLOT_WIDTH - left) / len(rebuilds), 48.0)
    parts = []
    for value in (0.0, longest / 2, longest):
        y = scale.at(value)
        parts.append(_fill('<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>', left, _PLOT_WIDTH, y))
        parts.append(_text(left - 8, y + 4, f"{value:.0f} s", "end"))
    for place, run in enumerate(rebuilds):
        x, y = round(left + place * step + 3, 1), scale.at(run.seconds)
        kind = "bad" if run.status == "FAILURE" else "model" if run.job == "train" else "other"
        said = _title(
            f"{run.job} {run.run_id[:8]}, {run.started:%Y-%m-%d %H:%M} UTC: {run.seconds:.1f} s, {run.status.lower()}"
        )
        box = (x, y, round(step - 6, 1), round(height - 22 - y, 1), kind, said)
        parts.append(_fill('<rect x="{}" y="{}" width="{}" height="{}" rx="2" class="{}">{}</rect>', *box))
    return _svg(_PLOT_WIDTH, height, "Seconds of the newest runs", parts)


def _scale(builds: Sequence[Build], start: float, end: float) -> Scale:
    """Return a scale that holds every figure and most of each interval."""
    figures = [figure for build in builds for figure in build.gap_closed.values()]
    lows = [figure.mean if figure.low is None else figure.low for figure in figures]
    highs = [figure.mean if figure.high is None else figure.high for figure in figures]
    ceilings = [build.ceiling for build in builds if build.ceiling is not None]
    low, high = max(min(lows, default=0.0), _LOWEST_SHOWN), max([*highs, *ceilings, 0.5])
    return Scale(min(low, -0.1) - 0.05, min(high, 1.0) + 0.05, start, end)


def _ticks(scale: Scale) -> list[float]:
    step = 0.5 if scale.high - scale.low > 1 else 0.2
    return [n * step for n in range(-10, 11) if scale.low <= n * step <= scale.high]


def _tick(scale: Scale, value: float, height: float) -> Markup:
    x = scale.at(value)
    line = _fill('<line class="{}" x1="{}" x2="{}" y1="4" y2="{}"/>', "zero" if value == 0 else "grid", x, x, height - 22)
    return line + _text(x, height - 6, f"{value:+.1f}" if value else "0", "middle")


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> Markup:
    return _fill('<text x="{}" y="{}" text-anchor="{}" class="{}">{}</text>', x, y, anchor, kind, shown(text))


def _title(text: str) -> Markup:
    return _fill("<title>{}</title>", shown(text))


def _fill(template: str, *values: object) -> Markup:
    """Fill the template with `values`, each escaped."""
    return Markup(template).format(*values)


def _svg(width: float, height: float, label: str, parts: Sequence[Markup]) -> Markup:
    head = _fill('<svg viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" aria-label="{2}">', width, height, label)
    return head + Markup("").join(parts) + Markup("</svg>")
