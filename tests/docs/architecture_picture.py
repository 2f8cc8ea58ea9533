"""The picture in `docs/architecture.md`, drawn from the imports: `python -m tests.docs.architecture_picture`."""

import inspect
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from xml.sax.saxutils import escape

from tests.test_imports import ALLOWED, imported

PICTURE = Path("docs") / "images" / "architecture.svg"
WIDTH, MARGIN, GAP, LINE = 880, 16, 44, 19
ROOMS = 'font-family="monospace" fill="#1f5f8b" xml:space="preserve"'

Arrows = dict[tuple[str, str], set[str]]


def arrows(repository: Path) -> Arrows:
    """(package, package that it imports) -> the rooms that are imported."""
    found: Arrows = defaultdict(set)
    for package in ALLOWED:
        for path in (repository / package).rglob("*.py"):
            for module in imported(path):
                target, _, rest = module.partition(".")
                if target in ALLOWED and target != package:
                    found[package, target].add(f"{target}.{rest.partition('.')[0]}")
    return dict(found)


def levels(found: Arrows) -> dict[str, int]:
    """How far each package is from the ones that import nothing of ours."""
    depth = dict.fromkeys(ALLOWED, 0)
    for _ in ALLOWED:
        for package, target in found:
            depth[package] = max(depth[package], depth[target] + 1)
    return depth


def direct(found: Arrows) -> Arrows:
    """The arrows that do not follow from others."""

    def reaches(package: str, target: str, without: tuple[str, str]) -> bool:
        nexts = [b for a, b in found if a == package and (a, b) != without]
        return target in nexts or any(reaches(each, target, without) for each in nexts)

    return {arrow: rooms for arrow, rooms in found.items() if not reaches(*arrow, arrow)}


def rooms(repository: Path, package: str) -> list[str]:
    """The folders of a package that hold modules."""
    return sorted({path.parent.name for path in (repository / package).glob("*/__init__.py")})


def says(package: str) -> str:
    """The first line of a package's docstring."""
    return (inspect.getdoc(import_module(package)) or "").splitlines()[0].rstrip(".").replace("`", "")


def picture(repository: Path) -> str:
    """The SVG: the longest chain of imports from top to bottom, every other package beside it."""
    found = arrows(repository)
    level, lines = levels(found), direct(found)
    chain = [max(level, key=level.__getitem__)]
    while level[chain[-1]]:
        chain.append(next(b for a, b in lines if a == chain[-1] and level[b] == level[a] - 1))
    beside = [package for package in ALLOWED if package not in chain]
    spans = {package: range(level[package], min(level[a] for a, b in lines if b == package)) for package in beside}
    narrow = {each for span in spans.values() for each in span}
    boxes: dict[str, Box] = {}
    top, ends = float(MARGIN), {}
    for package in chain:
        width = (WIDTH - 3 * MARGIN) * 0.6 if level[package] in narrow else WIDTH - 2 * MARGIN
        made = Box(package, MARGIN, top, width, *content(repository, package, width))
        boxes[package], ends[level[package]] = made, (top, top + made.height)
        top += made.height + GAP
    for place, package in enumerate(beside):
        width = (WIDTH - 3 * MARGIN) * 0.4 / len(beside)
        first, last = ends[spans[package][-1]][0], ends[spans[package][0]][1]
        left = WIDTH - MARGIN - width * (len(beside) - place)
        boxes[package] = Box(package, left, first, width, *content(repository, package, width), tall=last - first)
    parts = [line for made in boxes.values() for line in made.svg()]
    parts += [line for arrow, into in lines.items() for line in arrow_line(boxes[arrow[0]], boxes[arrow[1]], into)]
    return "\n".join([HEAD.format(width=WIDTH, height=round(top - GAP + MARGIN)), *parts, "</svg>"]) + "\n"


HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">
<title>The packages and what they import</title>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">\
<path d="M0 0 8 4 0 8z" fill="#5b6b7b"/></marker></defs>
<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>"""


def wrapped(text: str, width: float, between: str = " ", letter: float = 6.6) -> list[str]:
    """Lines of `text` that fit a box, at `letter` units a letter."""
    lines = [""]
    for word in text.split(between):
        longer = f"{lines[-1]}{between}{word}" if lines[-1] else word
        if len(longer) * letter > width - 24 and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines if text else []


def content(repository: Path, package: str, width: float) -> tuple[list[str], list[str]]:
    """Lines that say what a package does, and lines of its rooms."""
    return wrapped(says(package), width), wrapped("  ".join(rooms(repository, package)), width, "  ", 8.0)


@dataclass(frozen=True)
class Box:
    """A package: its name, what it does, and its rooms."""

    name: str
    left: float
    top: float
    width: float
    about: list[str]
    rooms: list[str]
    tall: float = 0.0

    @property
    def height(self) -> float:
        """As high as the text, or as `tall`."""
        return self.tall or (1 + len(self.about) + len(self.rooms)) * LINE + 16

    def svg(self) -> Iterator[str]:
        """The box and its lines of text."""
        place = f'x="{self.left:.0f}" y="{self.top:.0f}" width="{self.width:.0f}" height="{self.height:.0f}"'
        yield f'<rect {place} rx="6" fill="#eef3f8" stroke="#5b6b7b"/>'
        styles = {'font-weight="bold" fill="#12263a"': [self.name], 'fill="#33475b"': self.about, ROOMS: self.rooms}
        top = self.top + 20
        for style, lines in styles.items():
            for line in lines:
                yield f'<text x="{self.left + 12:.0f}" y="{top:.0f}" {style}>{escape(line)}</text>'
                top += LINE


def arrow_line(above: Box, below: Box, into: set[str]) -> Iterator[str]:
    """An arrow from the middle of the narrower box; with the name of the room, if only one is imported."""
    narrow = above if above.width <= below.width else below
    x = narrow.left + narrow.width / 2
    ends = f'x1="{x:.0f}" y1="{above.top + above.height:.0f}" x2="{x:.0f}" y2="{below.top - 2:.0f}"'
    yield f'<line {ends} stroke="#5b6b7b" stroke-width="1.5" marker-end="url(#tip)"/>'
    if len(into) == 1:
        yield f'<text x="{x + 8:.0f}" y="{below.top - 14:.0f}" fill="#33475b">only {escape(*into)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(picture(Path.cwd()), encoding="utf-8")
