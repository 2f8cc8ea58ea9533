"""`tamiyo rejects`: what was not kept of the exports, and why."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tamiyo_assets.commands.options import AsJson, Home, print_json, reported
from tamiyo_assets.settings import resolve

_EXAMPLES = """
Count the rejected records by table and reason, or list them.

Examples:

    tamiyo rejects

    tamiyo rejects --table rejects.kasmina_seed_state --limit 20

    tamiyo rejects --json
"""

Name = Annotated[str | None, typer.Option("--table", help="List the records of this rejects table.", show_default=False)]
Limit = Annotated[int, typer.Option("--limit", min=1, help="How many records to list.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("rejects", help=_EXAMPLES)(reported(rejects))


def rejects(home: Home = None, table: Name = None, limit: Limit = 50, as_json: AsJson = False) -> None:
    """Exit status 0, also where there are rejects: they are not an error of this command."""
    from tamiyo_assets.rejects import rejects_by_reason
    from tamiyo_assets.resources.tables import TableStore

    tables = TableStore(resolve(home=home).home)
    if table is not None:
        _list(tables.read(table).slice(0, limit).to_pylist(), as_json)
        return
    counts = rejects_by_reason(tables)
    if as_json:
        print_json({"rejects": [count.model_dump() for count in counts]})
        return
    shown = Table("table", "reason", "records", box=None)
    for count in counts:
        shown.add_row(count.table, count.reason, f"{count.records:,}")
    Console().print(shown if counts else "no rejects")


def _list(rows: list[dict[str, Any]], as_json: bool) -> None:
    for row in rows:
        row["raw"] = (row["raw"] or b"").decode("utf-8", "backslashreplace")
    if as_json:
        print_json({"records": rows})
        return
    for row in rows:
        where = f"{row['file']} at {row['position']}"
        Console().print(f"{where}: {row['reason']}: {row['message']}", markup=False, highlight=False, soft_wrap=True)
