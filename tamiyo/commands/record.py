"""Define `tamiyo record`: train instrumented hosts and write everything measured as exports."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from lake.settings import DEFAULT_EXPORTS
from schemas.errors import TamiyoError
from tamiyo.commands.options import AsJson, Exit, Result, fail, printing, reported
from tamiyo.commands.stopping import leaving
from tamiyo.terminal import Terminal

if TYPE_CHECKING:
    from recorder.runs.plan import RecordPlan

_EXAMPLES = """
Record real training: hosts, their telemetry, grafts measured against the same host without them. Resumable.

Examples:

    tamiyo record --hosts 12

    tamiyo record --exports var/exports --minutes 10 --seed 7 --workers 2

    tamiyo record --minutes 5 --format ndjson.zst

    tamiyo record --hosts 40 --kernels 14 --replicates 1      # many hosts, each pair once: the cheap way to learn

    tamiyo record --hosts 12 --states 3 --replicates 2        # three moments of each run, and how far a label can be trusted

    tamiyo record --hosts 12 --compile-backend inductor

    tamiyo record --oona redis://127.0.0.1:6379 --from recorder/sample --rate 50

    tamiyo record --oona redis://127.0.0.1:6379 --obey --hosts 12 --seed 4711      # train live, and do what Tamiyo commands
"""

Root = Annotated[
    Path | None,
    typer.Option("--exports", help="Where to write; default `$TAMIYO_EXPORTS`, else `var/exports`.", show_default=False),
]
Minutes = Annotated[float | None, typer.Option("--minutes", min=0.1, help="Stop after this time.", show_default=False)]
Hosts = Annotated[int | None, typer.Option("--hosts", min=1, help="Stop after this many hosts.", show_default=False)]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Host i of a seed is always the same host.")]
Format = Annotated[str, typer.Option("--format", help="mixed, binpb, wal, ndjson, ndjson.gz, ndjson.zst or parquet.")]
Backend = Annotated[
    str,
    typer.Option(
        "--compile-backend",
        metavar="NAME",
        help="What torch.compile compiles kernels and hosts with; `inductor` needs a C++ compiler and up to 20 s a module.",
    ),
]
Kernels = Annotated[
    int, typer.Option("--kernels", min=2, help="Pairs a state: so many kernels are dealt to its 2 to 4 sites and tried there.")
]
Replicates = Annotated[
    int | None,
    typer.Option("--replicates", min=1, help="Of every pair; default 1, and 2 on every fifth host.", show_default=False),
]
States = Annotated[int, typer.Option("--states", min=1, max=12, help="Moments of each run in which kernels are tried.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes that record at once.")]

Oona = Annotated[
    str | None,
    typer.Option("--oona", help="Send what was recorded as live traffic to this Redis.", show_default=False),
]
Source = Annotated[
    Path | None,
    typer.Option("--from", help="With --oona: send these exports and record nothing.", show_default=False),
]
Rate = Annotated[
    float, typer.Option("--rate", min=0.0, help="With --oona: messages a second, with --obey packets; 0 as fast as it goes.")
]
Obey = Annotated[bool, typer.Option("--obey", help="With --oona: send packets while hosts train, and obey what comes back.")]
Announce = Annotated[bool, typer.Option("--announce", help="With --oona: say what the hosts of --obey are, and train none.")]
AtOnce = Annotated[int, typer.Option("--at-once", min=1, help="With --obey: hosts that take turns.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("record", help=_EXAMPLES)(reported(record))


def record(
    exports: Root = None,
    minutes: Minutes = None,
    hosts: Hosts = None,
    seed: Seed = 1,
    format: Format = "mixed",
    workers: Workers = 1,
    kernels: Kernels = 14,
    replicates: Replicates = None,
    states: States = 1,
    compile_backend: Backend = "aot_eager",
    oona: Oona = None,
    source: Source = None,
    rate: Rate = 20.0,
    obey: Obey = False,
    announce: Announce = False,
    at_once: AtOnce = 4,
    as_json: AsJson = False,
) -> Result:
    """Exit status 0; 1 if the recording was refused; 2 for arguments that make no plan."""
    from recorder.runs.plan import RecordPlan, state_steps
    from recorder.runs.record import record as carry_out

    console = Terminal(quiet=as_json)
    if source is not None:
        if oona is None:
            fail(f"--from {source}: expected --oona URL with it, found none; say where to send these exports", Exit.USAGE)
        return _send(source, None, oona, rate, console)
    asked: dict[str, object] = {"minutes": minutes, "hosts": hosts, "seed": seed, "format": format, "workers": workers}
    asked |= {"kernels": kernels, "replicates": replicates, "compile_backend": compile_backend}
    asked["states"] = state_steps(states)
    try:
        plan = RecordPlan.model_validate(
            {"exports": exports or Path(os.environ.get("TAMIYO_EXPORTS") or DEFAULT_EXPORTS), **asked}
        )
    except ValidationError as error:
        fail("; ".join(f"--{str(fault['loc'][0]).replace('_', '-')}: {fault['msg']}" for fault in error.errors()), Exit.USAGE)
    if obey or announce:
        return _live(plan, oona, rate, at_once, console, announce=announce)
    with leaving("hosts that were recorded whole are written, and the same command goes on with the next"):
        files = carry_out(plan, lambda progress: console.print(str(progress)))
    if oona is not None:
        return _send(plan.exports, files, oona, rate, console)
    return Result(
        {"exports": str(plan.exports), "files": [_relative(path, plan.exports) for path in files]},
        printing(f"{len(files)} files under {plan.exports}. Next: tamiyo run --exports {plan.exports}"),
    )


def _live(plan: "RecordPlan", url: str | None, rate: float, at_once: int, console: Terminal, *, announce: bool) -> Result:
    """Announce hosts, or train them while Oona listens and obey what it carries."""
    from tamiyo.live.bus import SECRET, secret_of
    from tamiyo.live.obedience import Obedience

    secret = secret_of()
    if plan.hosts is None and plan.minutes is not None:
        fail("--obey: expected --hosts N, found --minutes alone; a run that is cut short tells nothing", Exit.USAGE)
    if url is None:
        fail("--obey: expected --oona URL with it, found none; say where packets go and commands come from", Exit.USAGE)
    if secret is None:
        fail(
            f"--obey: expected {SECRET} in the environment, found none: a command that nobody signed is not obeyed", Exit.USAGE
        )
    session = Obedience(plan, url, secret, rate=rate, at_once=at_once, told=console.print)
    with leaving("what was sent stays sent"):
        if announce:
            told = session.announce()
            return Result({"announced": told}, printing(f"{told} hosts announced on {url}"))
        counts = session.train()
    return Result(counts.told(), printing(str(counts)))


def _send(root: Path, files: list[Path] | None, url: str, rate: float, console: Terminal) -> Result:
    """Send exports as live traffic."""
    from tamiyo.live.bus import secret_of
    from tamiyo.live.traffic import Traffic

    traffic = Traffic.of(root, files)
    total = len(traffic.messages)
    for what, count in sorted(traffic.left_out.items()):
        console.print(f"{count} left out of {what}")

    def told(sent: int) -> None:
        if sent % 1000 == 0:
            console.print(f"{sent} of {total} messages")

    with leaving("what was sent stays sent"):
        sent = traffic.send(url, secret_of(), rate, told)
    return Result({"sent": sent, "left_out": traffic.left_out}, printing(f"{sent} messages of {root} sent to {url}"))


def _relative(path: Path, root: Path) -> str:
    if not path.is_relative_to(root):
        raise TamiyoError(f"recording: expected files under {root}, found {path}")
    return path.relative_to(root).as_posix()
