"""Define `tamiyo rejects`: list what was not kept and why, save its bytes, decode it again after a fix."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from lake.settings import Settings, resolve
from schemas.contracts import Reason
from tamiyo.commands.options import Exit, ExportsRoot, Home, Result, fail, printing, reported
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
) -> Result:
    """Exit status 0, also if there are rejects: they are not an error of this command."""
    if reason is not None and reason not in set(Reason):
        fail(f"--reason {reason}: expected one of {', '.join(Reason)}", Exit.USAGE)
    if table is not None and not table.startswith("rejects."):
        fail(f"--table {table}: expected a rejects table, such as those that `tamiyo rejects` lists", Exit.USAGE)
    if again and raw is not None:
        fail("--replay and --raw: expected one of them, found both", Exit.USAGE)
    settings = resolve(exports=exports, home=home)
    if again:
        return _replay(settings, table, reason)
    if raw is not None:
        return _save(list(islice(_records(settings, table, reason), limit)), raw)
    if table is not None or reason is not None:
        return _list(list(islice(_records(settings, table, reason), limit)))
    return _count(settings)


def _count(settings: Settings) -> Result:
    from lake.rejects import rejects_by_reason
    from lake.store.table_store import TableStore

    counts = rejects_by_reason(TableStore(settings.home))
    rows = [(count.table, count.reason, f"{count.records:,}") for count in counts]
    return Result(
        {"rejects": [count.model_dump() for count in counts]},
        printing(table_of("table", "reason", "records", rows=rows) if counts else "no rejects"),
    )


def _records(settings: Settings, table: str | None, reason: str | None) -> Iterator[dict[str, Any]]:
    from lake.rejects import reject_names
    from lake.store.table_store import TableStore

    tables = TableStore(settings.home)
    for name in reject_names(tables) if table is None else [table]:
        for batch in tables.batches(name):
            for row in batch.to_pylist():
                if reason in (None, row["reason"]):
                    yield {"table": name, **row}


def _list(rows: list[dict[str, Any]]) -> Result:
    for row in rows:
        row["raw"] = (row["raw"] or b"").decode("utf-8", "backslashreplace")
        row["records"] = row["records"] or 1
    return Result({"records": rows}, printing(*map(_line, rows)))


def _line(row: Mapping[str, Any]) -> str:
    where = f"{row['file']} at {row['position']}"
    where += f" ({row['records']:,} records)" if row["records"] > 1 else ""
    return f"{where}: {row['reason']}: {row['message']}"


def _save(rows: list[dict[str, Any]], folder: Path) -> Result:
    folder.mkdir(parents=True, exist_ok=True)
    saved = {}
    for row in rows:
        path = folder / f"{row['export_digest'][:16]}-{row['position']}.raw"
        path.write_bytes(row["raw"] or b"")
        saved[str(path)] = f"{row['file']} at {row['position']}: {row['reason']}"
    return Result({"saved": saved}, printing(*(f"{name}: {where}" for name, where in saved.items())))


def _replay(settings: Settings, table: str | None, reason: str | None) -> Result:
    from lake.exports.folders import Exports
    from lake.replay.run import replay
    from lake.replay.selection import Filter
    from lake.store.table_store import TableStore

    tables = TableStore(settings.home)
    done = replay(settings.home, tables, Exports(settings.exports), settings.limits, Filter(table, reason))
    rows = [(one.table, one.reason, f"{one.healed:,}", f"{one.failing:,}") for one in done.rejects]
    lines = [f"{name}: {gained:+,} rows" for name, gained in sorted(done.gained.items())]
    if done.files_missing:
        lines.append(f"{done.files_missing} exports had to be read whole and are not there any more: bring them back")
    if done.healed:
        lines.append("`tamiyo run` brings what is built on them up to date.")
    listed = table_of("table", "reason", "healed", "still rejected", rows=rows) if rows else "no rejects"
    return Result({**done.model_dump(), "healed": done.healed}, printing(listed, *lines))
