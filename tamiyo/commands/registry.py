"""Define `tamiyo registry list | show | diff | retire`: read the vocabularies and how they grew."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from lake.settings import resolve
from schemas.artifacts import REGISTRIES
from tamiyo.commands.options import Exit, Home, Result, fail, printing, reported
from tamiyo.terminal import table

_EXAMPLES = """
Read the registries: category -> index, append-only, an index never moves.

Examples:

    tamiyo registry list

    tamiyo registry show layer_type

    tamiyo registry diff seed 1 2

    tamiyo registry retire seed seed-7
"""

Name = Annotated[str, typer.Argument(help=f"One of: {', '.join(REGISTRIES)}.")]
Older = Annotated[int, typer.Argument(min=0, help="The older version; 0 is before the first.")]
Newer = Annotated[int, typer.Argument(min=1, help="The newer version.")]
Key = Annotated[str, typer.Argument(help="The key to retire: listed as such, its index never freed.")]

group = typer.Typer(help=_EXAMPLES, no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    commands: dict[str, tuple[Callable[..., Result], str]] = {
        "list": (list_registries, "tamiyo registry list --json"),
        "show": (show, "tamiyo registry show layer_type"),
        "diff": (diff, "tamiyo registry diff seed 1 2"),
        "retire": (retire, "tamiyo registry retire seed seed-7"),
    }
    for name, (command, example) in commands.items():
        group.command(name, help=f"{command.__doc__}\n\nExamples:\n\n    {example}")(reported(command))
    app.add_typer(group, name="registry")


def list_registries(home: Home = None) -> Result:
    """List every registry with version, size and how much of its capacity is used."""
    from gnn.registry.refresh import load

    found: list[dict[str, Any]] = [
        {
            "name": name,
            "version": registry.version,
            "size": len(registry.entries),
            "capacity": registry.capacity,
            "retired": len(registry.retired),
            "digest": registry.digest,
        }
        for name, registry in load(resolve(home=home).home / "registries").items()
    ]
    names = ("version", "size", "capacity", "used", "retired")
    used = ({**row, "used": f"{row['size'] / row['capacity']:.1%}"} for row in found)
    rows = [(row["name"], *(str(row[name]) for name in names)) for row in used]
    return Result({"registries": found}, printing(table("registry", *names, rows=rows)))


def show(name: Name, home: Home = None) -> Result:
    """List the entries of one registry, by index."""
    from gnn.registry.refresh import load

    _known(name)
    registry = load(resolve(home=home).home / "registries")[name]
    entries = sorted(registry.entries.items(), key=lambda entry: entry[1])
    rows = [(str(index), key, "retired" if key in registry.retired else "") for key, index in entries]
    return Result(
        {"name": name, "version": registry.version, "entries": dict(registry.entries), "retired": registry.retired},
        printing(table("index", "key", "", rows=rows)),
    )


def diff(name: Name, older: Older, newer: Newer, home: Home = None) -> Result:
    """List what was added after one version, up to another."""
    from gnn.registry.files import read_set

    _known(name)
    _, records = read_set(resolve(home=home).home / "registries")
    versions: list[Any] = records[name].versions if name in records else []
    if newer > len(versions) or older >= newer:
        fail(
            f"registry {name}: expected versions 0..{len(versions)}, the older one first, found {older} and {newer}", Exit.USAGE
        )
    added = {key: index for version in versions[older:newer] for key, index in version.added.items()}
    lines = (f"+ {index} {key}" for key, index in sorted(added.items(), key=lambda entry: entry[1]))
    return Result({"name": name, "from": older, "to": newer, "added": added}, printing(*lines))


def retire(name: Name, key: Key, home: Home = None) -> Result:
    """Mark a key as retired by an operator; it keeps its index for ever."""
    from gnn.registry.refresh import retire as mark

    mark(resolve(home=home).home / "registries", name, key)
    return Result({"name": name, "retired": key}, printing(f"registry {name}: {key} is retired"))


def _known(name: str) -> None:
    if name not in REGISTRIES:
        fail(f"registry {name!r}: expected one of {', '.join(REGISTRIES)}", Exit.USAGE)
