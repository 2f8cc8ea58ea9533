"""`tamiyo rejects`: what was not kept of the exports and why, its bytes, and decoding it again after a fix."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from lake.settings import Settings, resolve
from schemas.contracts import Reason
from tamiyo.commands.options import AsJson, Exit, ExportsRoot, Home, fail, print_json, reported
from tamiyo.terminal import Terminal
from tamiyo.terminal import table as table_of

_EXAMPLES = """
Count the rejected records by table and reason, list them, save their bytes, or decode them again after a fix.

A record that passes now becomes rows and leaves its rejects table; one that does not stays, with today's reason. Records whose
fix is on the producer's side need no replay: a corrected file arrives as a new export.

Examples:

    tamiyo rejects

    tamiyo rejects --table rejects.kasmina_seed_state --limit 20

    tamiyo rejects --reason invalid_json --json

    tamiyo rejects --reason torn_record --raw var/repair

    TAMIYO_LIMITS='{"string_bytes": 4194304}' tamiyo rejects --replay --reason limit_exceeded
"""

Name = Annotated[str | None, typer.Option("--table", help="Only records of this rejects table.", show_default=False)]
Why = Annotated[
    str | None, typer.Option("--reason", help="Only records with this reason code, see contracts.md.", show_default=False)
]
Limit = Annotated[int, typer.Option("--limit", min=1, help="How many records to list or save.")]
Again = Annotated[bool, typer.Option("--replay", help="Decode the records again, from their kept bytes.")]
Raw = Annotated[
    Path | None,
    typer.Option("--raw", help="Save the records' bytes here, one file `<digest>-<position>.raw` each.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("rejects", help=_EXAMPLES)(reported(rejects))


def rejects(
    home: Home = None,
    table: Name = None,
    reason: Why = None,
    limit: Limit = 50,
    raw: Raw = None,
    again: Again = False,
    exports: ExportsRoot = None,
    as_json: AsJson = False,
) -> None:
    """Exit status 0, also where there are rejects: they are not an error of this command."""
    if reason is not None and reason not in set(Reason):
        fail(f"--reason {reason}: expected one of {', '.join(Reason)}", Exit.USAGE)
    if table is not None and not table.startswith("rejects."):
        fail(f"--table {table}: expected a rejects table, such as those that `tamiyo rejects` lists", Exit.USAGE)
    if again and raw is not None:
        fail("--replay and --raw: expected one of them, found both", Exit.USAGE)
    settings = resolve(exports=exports, home=home)
    if again:
        _replay(settings, table, reason, as_json)
    elif raw is not None:
        _save(list(islice(_records(settings, table, reason), limit)), raw, as_json)
    elif table is not None or reason is not None:
        _list(list(islice(_records(settings, table, reason), limit)), as_json)
    else:
        _count(settings, as_json)


def _count(settings: Settings, as_json: bool) -> None:
    from lake.rejects import rejects_by_reason
    from lake.store.tables import TableStore

    counts = rejects_by_reason(TableStore(settings.home))
    if as_json:
        print_json({"rejects": [count.model_dump() for count in counts]})
        return
    rows = [(count.table, count.reason, f"{count.records:,}") for count in counts]
    Terminal().print(table_of("table", "reason", "records", rows=rows) if counts else "no rejects")


def _records(settings: Settings, table: str | None, reason: str | None) -> Iterator[dict[str, Any]]:
    from lake.rejects import reject_names
    from lake.store.tables import TableStore

    tables = TableStore(settings.home)
    for name in reject_names(tables) if table is None else [table]:
        for batch in tables.batches(name):
            for row in batch.to_pylist():
                if reason in (None, row["reason"]):
                    yield {"table": name, **row}


def _list(rows: list[dict[str, Any]], as_json: bool) -> None:
    for row in rows:
        row["raw"] = (row["raw"] or b"").decode("utf-8", "backslashreplace")
        row["records"] = row["records"] or 1
    if as_json:
        print_json({"records": rows})
        return
    for row in rows:
        where = f"{row['file']} at {row['position']}"
        where += f" ({row['records']:,} records)" if row["records"] > 1 else ""
        Terminal().print(f"{where}: {row['reason']}: {row['message']}")


def _save(rows: list[dict[str, Any]], folder: Path, as_json: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    saved = {}
    for row in rows:
        path = folder / f"{row['export_digest'][:16]}-{row['position']}.raw"
        path.write_bytes(row["raw"] or b"")
        saved[str(path)] = f"{row['file']} at {row['position']}: {row['reason']}"
    if as_json:
        print_json({"saved": saved})
        return
    for name, where in saved.items():
        Terminal().print(f"{name}: {where}")


def _replay(settings: Settings, table: str | None, reason: str | None, as_json: bool) -> None:
    from lake.exports.folders import Exports
    from lake.replay.run import replay
    from lake.replay.selection import Filter
    from lake.store.tables import TableStore

    tables = TableStore(settings.home)
    done = replay(settings.home, tables, Exports(settings.exports), settings.limits, Filter(table, reason))
    if as_json:
        print_json({**done.model_dump(), "healed": done.healed})
        return
    rows = [(one.table, one.reason, f"{one.healed:,}", f"{one.failing:,}") for one in done.rejects]
    console = Terminal()
    console.print(table_of("table", "reason", "healed", "still rejected", rows=rows) if rows else "no rejects")
    for name, gained in sorted(done.gained.items()):
        console.print(f"{name}: {gained:+,} rows")
    if done.files_missing:
        console.print(f"{done.files_missing} exports had to be read whole and are not there any more: bring them back")
    if done.healed:
        console.print("`tamiyo run` brings what is built on them up to date.")
