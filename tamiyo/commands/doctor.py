"""Define `tamiyo doctor`, which checks and repairs a home, and `tamiyo lineage`, which lists what a bundle was made of."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lake.settings import resolve
from tamiyo.commands.options import Exit, ExportsRoot, Home, Result, printing, quiet_dagster, reported
from tamiyo.terminal import Terminal

_DOCTOR = """
Check everything in the home: registries, norms, tables, pins, bundles, the ledger, noted digests of exports, the warehouse.

Examples:

    tamiyo doctor

    tamiyo doctor --repair

    tamiyo doctor --prune-instance
"""
_LINEAGE = """
Print what a bundle was made of, down to the export files; without a build id, list the builds that are known.

Examples:

    tamiyo lineage

    tamiyo lineage BUILD_ID --json
"""
_SHOWN = 12

Repair = Annotated[bool, typer.Option("--repair", help="Put right what can be, and say how.")]
Prune = Annotated[
    bool,
    typer.Option(
        "--prune-instance",
        help="Instead, make the Dagster instance small: old runs, pictures in events, retired partitions.",
    ),
]
KeepDays = Annotated[int, typer.Option("--keep-days", min=0, help="With --prune-instance: runs that ended later are kept.")]
BuildId = Annotated[str | None, typer.Argument(help="The build id, or its beginning.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("doctor", help=_DOCTOR)(reported(doctor))
    app.command("lineage", help=_LINEAGE)(reported(lineage))


def doctor(
    home: Home = None,
    exports: ExportsRoot = None,
    repair: Repair = False,
    prune_instance: Prune = False,
    keep_days: KeepDays = 30,
) -> Result:
    """Report what is wrong, and repair it on demand; status 1 if something is still wrong."""
    from lake.exports.folders import Exports
    from tamiyo.doctor import examine

    settings = resolve(home=home, exports=exports)
    if prune_instance:
        return _prune(settings.dagster_home, keep_days)
    root = Exports(settings.exports) if settings.exports.is_dir() else None
    found = examine(settings.home, exports=root, repair=repair, silent_after=settings.freshness)

    def show(terminal: Terminal) -> None:
        for finding in found:
            terminal.print(finding.problem, style="yellow" if finding.repaired else "red")
            terminal.print(f"  {finding.repaired or 'not repaired'}")
        sound = f"{settings.home}: every digest, version and link is right"
        terminal.print(f"{len(found)} found" if found else sound)

    return Result(
        {"home": str(settings.home), "findings": [asdict(finding) for finding in found]},
        show,
        Exit.REFUSED if any(finding.repaired is None for finding in found) else Exit.OK,
    )


def _prune(dagster_home: Path, keep_days: int) -> Result:
    """Prune the Dagster instance; the result says what went, and its size before and after."""
    with quiet_dagster():
        from tamiyo.doctor.event_log import prune_instance

        done = prune_instance(dagster_home, keep_days)
    line = (
        f"{dagster_home}: {done.runs} old runs, {done.partition_events} events of retired partitions "
        f"and the pictures of {done.pictures} events taken out; {done.bytes_before / 1e6:.1f} MB before, "
        f"{done.bytes_after / 1e6:.1f} MB after"
    )
    return Result({"instance": str(dagster_home), **asdict(done)}, printing(line))


def lineage(build_id: BuildId = None, home: Home = None) -> Result:
    """Return the chain from export files to a bundle."""
    from lake.builds import builds, chain, whole_build_id

    where = resolve(home=home).home
    if build_id is None:
        known = builds(where)
        return Result({"builds": known}, printing(*known))
    build_id = whole_build_id(where, build_id)
    found = chain(where, build_id)
    return Result(found, printing(*_lines(build_id, found)))


def _lines(build_id: str, found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the chain from a build to its exports, one line per part."""
    yield f"build {build_id}"
    yield f"code {found['code']}"
    yield f"norms {found['norms']}"
    for name, digest in sorted(found["registries"].items()):
        yield f"registry {name} {digest}"
    for name, table in found["tables"].items():
        yield f"table {name} {table['digest']} version {'none' if table['version'] is None else table['version']}"
        for export in table["exports"][:_SHOWN]:
            yield f"  export {export['digest']} {', '.join(export['files']) or 'not in the ledger'}"
        if len(table["exports"]) > _SHOWN:
            yield f"  and {len(table['exports']) - _SHOWN} exports more; --json lists all"
