"""Define `tamiyo coverage`: print every feature's coverage, worst first, with the system to ask."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from lake.settings import Settings, resolve
from tamiyo.commands.options import Exit, Home, Result, fail, printing, reported
from tamiyo.commands.retire import retired_now
from tamiyo.terminal import table

_EXAMPLES = """
Print the coverage of every feature, worst first, with the system that should send it.

Examples:

    tamiyo coverage

    tamiyo coverage --run RUN_ID --below 0.7

    tamiyo coverage --json
"""

Run = Annotated[str | None, typer.Option("--run", help="Only this training run.", show_default=False)]
Below = Annotated[float, typer.Option("--below", min=0.0, help="Only keys with a ratio under this.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("coverage", help=_EXAMPLES)(reported(coverage))


def coverage(home: Home = None, run: Run = None, below: Below = 1.1) -> Result:
    """Exit status 0; 1 if there is no coverage yet or no such run."""
    settings = resolve(home=home)
    retired = retired_now(settings)
    rows = _rows(settings, run, [one for one in retired if one["training_run_id"] == run])
    shown = [row for row in rows if row["ratio"] is None or row["ratio"] < below]
    headers = ("key", "system to ask", "mandatory", "measured", "elements", "coverage")
    runs = "1 retired training run is" if len(retired) == 1 else f"{len(retired)} retired training runs are"
    notes = [f"{runs} left out; `tamiyo retire` lists them."] if retired else []
    return Result({"keys": shown, "retired": retired}, printing(table(*headers, rows=map(_cells, shown)), *notes))


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    ratio = "no element" if row["ratio"] is None else f"{row['ratio']:.3f}"
    mandatory = "mandatory" if row["mandatory"] else ""
    return row["key"], row["system"], mandatory, f"{row['measured']:,}", f"{row['elements']:,}", ratio


def _rows(settings: Settings, run: str | None, retired: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from gnn.coverage.ratios import key_totals, summed_by_key
    from lake.store.table_store import TableStore

    tables = TableStore(settings.home)
    if not tables.exists("coverage.by_key"):
        fail("coverage.by_key: expected a table, found none; run `tamiyo run` first", Exit.REFUSED)
    rows = key_totals(tables, [run] if run else None)
    if retired and not rows.num_rows:
        fail(f"training run {run!r}: expected one with coverage, found it retired: {retired[0]['reason']}", Exit.REFUSED)
    if run and not rows.num_rows:
        fail(
            f"training run {run!r}: expected one with coverage, found none; `tamiyo coverage` without --run has all",
            Exit.REFUSED,
        )
    return summed_by_key(rows)
