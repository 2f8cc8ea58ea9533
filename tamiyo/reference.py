"""Write `docs/reference/commands.md` and `configuration.md` from the declarations: `python -m tamiyo.reference`."""

import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import typer
from pydantic import BaseModel

from gnn.online.config import PREFIX, SERVING_FILE, ServingConfig
from lake.settings import FRESHNESS, LAUNCH
from schemas.configuration import LossWeights, ModelConfig, TrainingConfig, TrainingLaunch
from schemas.decode import Limits
from tamiyo.cli import app
from tamiyo.live.trial import PORT

DIRECTORY: Final = Path("docs") / "reference"
_PIPELINE: Final = Path("lake") / "pipeline.toml"
_HEAD: Final = "Written by `python -m tamiyo.reference` from {source}; do not edit."

VARIABLES: Final[Sequence[tuple[str, str, str]]] = (
    ("TAMIYO_HOME", "`var/tamiyo`", "Home: tables, registries, norms, bundles, alerts, panel. `--home` wins."),
    ("TAMIYO_EXPORTS", "`var/exports`, else the sample", "Exports root `<system>/<contract>/<file>`. `--exports` wins."),
    ("DAGSTER_HOME", "`var/dagster`", "Dagster's instance. `--home DIR` means `DIR/dagster` and wins."),
    ("TAMIYO_ALERT_WEBHOOK", "unset", "URL to which alerts are posted as JSON; unset, they are kept and listed."),
    ("TAMIYO_UI_URL", "`http://localhost:3000`", "What links in alerts begin with."),
    ("TAMIYO_MANDATORY_COVERAGE", "`pipeline.toml`", "Threshold of the check `mandatory_coverage`, 0 to 1."),
    ("TAMIYO_FAMILY_COVERAGE", "`pipeline.toml`", "Threshold of the check `family_coverage`, 0 to 1."),
    (
        "TAMIYO_FRESHNESS_HOURS",
        f"{FRESHNESS.total_seconds() / 3600:.0f}",
        "Hours for which a system may send nothing new before its feed is stale. Read when the code location loads.",
    ),
    ("TAMIYO_LIMITS", "`{}`", "JSON object of limits on what is read, see [below](#limits-on-exports)."),
    (LAUNCH, "`{}`", "JSON object of the fields of [`[training.launch]`](#where-a-training-runs) that differ on this machine."),
    ("TAMIYO_REDIS", "`redis://127.0.0.1:6379`", "The Redis that carries Oona, for `tamiyo serve`. `--redis` wins."),
    ("ESPER_LEYLINE_SECRET", "unset", "Key that signs and verifies messages on Oona; unset, messages are not signed."),
    (f"{PREFIX}<NAME>", f"`{SERVING_FILE}`", "Any field of the [serving configuration](#serving), in capitals."),
    ("OMP_NUM_THREADS", "1", "Threads of torch and NumPy in `make` and `tamiyo run`."),
    ("TAMIYO_POSTGRES", "unset", "For a [cluster](../operations/cluster.md): PostgreSQL of Dagster's instance and of locks."),
    ("TAMIYO_BROKER", "unset", "For a cluster: the Redis whose queues its workers read."),
    ("TAMIYO_WORKERS", "unset", "For a cluster: processes of all workers together, as many runs as are started at once."),
    ("TAMIYO_SHARED", "unset", "For a cluster: directory that all machines share, with Dagster's artifacts and logs."),
    ("PORT, RATE", f"{PORT}, 10", "For `make serve`: port of its pages, messages a second of its traffic."),
)


def commands() -> str:
    """Return the page of all commands: help, arguments, options with defaults, examples."""
    root = typer.main.get_command(app)
    parts = ["# Commands", "", _HEAD.format(source="the commands"), ""]
    parts += ["Every command also has `--json` (print one JSON object and nothing else) if it prints a result, and `--help`."]
    for path, command in _leaves(root, ("tamiyo",)):
        parts += ["", f"## {' '.join(path)}", "", *_help(command), *_parameters(command)]
    return "\n".join(parts) + "\n"


def configuration() -> str:
    """Return the page of all settings: variables, files and their defaults."""
    parts = ["# Configuration", "", _HEAD.format(source="the declarations"), ""]
    parts += ["An option wins over a variable, a variable over a file in the home, a file over the default.", ""]
    parts += ["## Environment variables", "", "| variable | default | meaning |", "|---|---|---|"]
    parts += [f"| `{name}` | {default} | {meaning} |" for name, default, meaning in VARIABLES]
    parts += ["", "## Checks, gates and patience", "", "`$TAMIYO_HOME/pipeline.toml` changes what it names; the rest keeps"]
    parts += ["these defaults. It is read at the start of every run and at every sensor tick.", ""]
    parts += ["```toml", _PIPELINE.read_text(encoding="utf-8").rstrip(), "```"]
    parts += ["", "## Training", "", "Fields of `[training]` in the same file. They are part of the build id.", ""]
    parts += [inspect.cleandoc(TrainingConfig.__doc__ or ""), "", *_fields(TrainingConfig)]
    for title, model in (("[training.model]", ModelConfig), ("[training.weights]", LossWeights)):
        parts += ["", f"`{title}`: {inspect.cleandoc(model.__doc__ or '')}", "", *_fields(model)]
    parts += ["", "## Where a training runs", "", "`[training.launch]` in the same file; `TAMIYO_TRAINING_LAUNCH` wins.", ""]
    parts += [inspect.cleandoc(TrainingLaunch.__doc__ or ""), "", *_fields(TrainingLaunch)]
    parts += ["", "## Serving", "", f"`$TAMIYO_HOME/{SERVING_FILE}`, `{PREFIX}<NAME>`, or arguments of `tamiyo serve`.", ""]
    parts += [*_fields(ServingConfig), "", "## Limits on exports", ""]
    parts += ["Fields of `TAMIYO_LIMITS`, such as `TAMIYO_LIMITS='{\"string_bytes\": 4194304}'`. A record beyond a limit is"]
    parts += ["rejected as `limit_exceeded` and keeps its bytes; `tamiyo rejects --replay` reads it again.", ""]
    return "\n".join([*parts, *_fields(Limits)]) + "\n"


def _leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield all commands that do something, with their full names."""
    found: dict[str, Any] = getattr(command, "commands", {})
    if not found:
        yield path, command
    for name, child in found.items():
        yield from _leaves(child, (*path, name))


def _help(command: Any) -> Iterator[str]:
    """Yield the help text, with its examples as a block of code."""
    text = inspect.cleandoc(command.help or "").replace("\b", "").rstrip()
    before, _, examples = text.partition("Examples:")
    yield from (line.rstrip() for line in before.strip().splitlines())
    shown = [line.strip() for line in examples.replace("`", "").splitlines() if line.strip()]
    if shown:
        yield from ("", "```", *shown, "```")


def _parameters(command: Any) -> Iterator[str]:
    """Yield a table of arguments and options."""
    rows = []
    for parameter in command.params:
        if parameter.name in ("help", "as_json"):
            continue
        word = (parameter.metavar or parameter.name or "").upper()
        named = parameter.param_type_name != "argument"
        name = ", ".join(f"`{each}`" for each in ((*parameter.opts, *parameter.secondary_opts) if named else (word,)))
        default = "" if parameter.default in (None, False, ()) or callable(parameter.default) else f"`{parameter.default}`"
        rows.append(f"| {name} | {getattr(parameter, 'help', '') or ''} | {default} |")
    if rows:
        yield from ("", "| argument or option | meaning | default |", "|---|---|---|", *rows)


def _fields(model: type[BaseModel]) -> list[str]:
    """Return a table of a model's plain fields; without the column of meanings if none has one."""
    plain = {name: field for name, field in model.model_fields.items() if not isinstance(field.default, BaseModel)}
    described = any(field.description for field in plain.values())
    rows = ["| field | default | meaning |", "|---|---|---|"] if described else ["| field | default |", "|---|---|"]
    for name, field in plain.items():
        meaning = f" {field.description or ''} |" if described else ""
        rows.append(f"| `{name}` | `{_json(field.default)}` |{meaning}")
    return rows


def _json(value: Any) -> str:
    return json.dumps(value, default=str)


PAGES: Final = {"commands.md": commands, "configuration.md": configuration}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DIRECTORY / name).write_text(page(), encoding="utf-8")
