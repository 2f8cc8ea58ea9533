"""The constraint table in `docs/serving.md`; `python -m tamiyo.live.reference` writes it anew from the rows."""

from pathlib import Path
from typing import Final

from gnn.online.constraints import CONSTRAINTS, Route, Scope
from tamiyo.live.limits import PROCESS

START: Final = "<!-- constraints: python -m tamiyo.live.reference -->"
END: Final = "<!-- end of constraints -->"
_SCOPES: Final = {
    Scope.GRAPH: "the graph",
    Scope.CANDIDATE: "each candidate",
    Scope.CHOSEN: "the chosen pair",
    Scope.ADJUSTMENT: "an adjustment",
}
_ROUTES: Final = {
    Route.GRAFT: "graft",
    Route.ADJUST: "optimizer adjustment",
    Route.PAUSE: "PAUSE",
    Route.NO_OP: "no command",
}


def constraint_table() -> str:
    """The rows as Markdown."""
    lines = ["| reason | asked of | if | then | priority |", "|---|---|---|---|---|"]
    for row in CONSTRAINTS:
        then = _ROUTES[row.route]
        if row.scope is Scope.CANDIDATE:
            then = f"taken out; {then} if nothing is left"
        lines.append(f"| `{row.reason}` | {_SCOPES[row.scope]} | {row.meaning} | {then} | {row.priority} |")
    lines += [f"| `{row.reason}` | the process | {row.meaning} | {_ROUTES[row.route]} | {row.priority} |" for row in PROCESS]
    return "\n".join(lines)


def write(path: Path) -> None:
    """Replace the table between its marks."""
    text = path.read_text(encoding="utf-8")
    before, after = text.split(START)[0], text.split(END)[1]
    path.write_text(f"{before}{START}\n\n{constraint_table()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write(Path("docs/serving.md"))
