"""Write the tables in `docs/serving.md` and `docs/loop.md` from the rows: `python -m tamiyo.live.reference`."""

from pathlib import Path
from typing import Final

from gnn.online.constraints import CONSTRAINTS, Route, Scope
from recorder.runs.orders import REFUSALS
from tamiyo.live.limits import PROCESS
from tamiyo.live.obedience import UNADDRESSED
from tamiyo.live.verifier import REASONS

START: Final = "<!-- constraints: python -m tamiyo.live.reference -->"
END: Final = "<!-- end of constraints -->"
REFUSALS_START: Final = "<!-- refusals: python -m tamiyo.live.reference -->"
REFUSALS_END: Final = "<!-- end of refusals -->"
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
    """Return the rows that decide, as Markdown."""
    lines = ["| reason | asked of | if | then | priority |", "|---|---|---|---|---|"]
    for row in CONSTRAINTS:
        then = _ROUTES[row.route]
        if row.scope is Scope.CANDIDATE:
            then = f"taken out; {then} if nothing is left"
        lines.append(f"| `{row.reason}` | {_SCOPES[row.scope]} | {row.meaning} | {then} | {row.priority} |")
    lines += [f"| `{row.reason}` | the process | {row.meaning} | {_ROUTES[row.route]} | {row.priority} |" for row in PROCESS]
    return "\n".join(lines)


def refusal_table() -> str:
    """Return why a host that obeys refuses a command, as Markdown."""
    lines = ["| reason | asked of | if |", "|---|---|---|"]
    lines += [f"| `{reason}` | the message | {meaning} |" for reason, meaning in REASONS.items()]
    lines += [f"| `{reason}` | its address | {meaning} |" for reason, meaning in UNADDRESSED.items()]
    lines += [f"| `{row.reason}` | the host | {row.meaning} |" for row in REFUSALS]
    return "\n".join(lines)


def write(path: Path, start: str, end: str, table: str) -> None:
    """Replace the table between its marks."""
    text = path.read_text(encoding="utf-8")
    before, after = text.split(start)[0], text.split(end)[1]
    path.write_text(f"{before}{start}\n\n{table}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    write(Path("docs/serving.md"), START, END, constraint_table())
    write(Path("docs/loop.md"), REFUSALS_START, REFUSALS_END, refusal_table())
