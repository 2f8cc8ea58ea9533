"""Define `tamiyo serve`: answer the packets of a live system and land its messages as exports."""

import os
import signal
import threading
from pathlib import Path
from typing import Annotated, Final

import typer

from lake.alert_outbox import AlertOutbox
from lake.settings import DEFAULT_EXPORTS, SAMPLE, Settings, require_home, resolve
from schemas.errors import StorageError
from tamiyo.commands.options import AsJson, ExportsRoot, Home, Result, printing, reported
from tamiyo.terminal import Terminal

_LONGEST_STOP_S: Final = 8.0
_EXAMPLES = """
Serve the bundle that `current` names: read Oona, land every message as an export, answer each packet once.

Examples:

    tamiyo serve --redis redis://127.0.0.1:6379 --home var/tamiyo

    ESPER_LEYLINE_SECRET=... tamiyo serve --redis redis://oona:6379 --port 9310 --budget-ms 45
"""

Redis = Annotated[str, typer.Option("--redis", envvar="TAMIYO_REDIS", help="URL of the Redis that carries Oona.")]
Host = Annotated[str, typer.Option("--host", help="Address of /healthz, /readyz, /metrics and /panel.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Their port; 0 takes a free one.")]
Budget = Annotated[float | None, typer.Option("--budget-ms", min=0.001, help="Time for an answer.", show_default=False)]
Runs = Annotated[str | None, typer.Option("--runs", help="Answer only runs of this pattern, as `run-*`.", show_default=False)]
Compile = Annotated[bool | None, typer.Option("--compile/--no-compile", help="Try torch.compile.", show_default=False)]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda or auto.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("serve", help=_EXAMPLES)(reported(serve))


def serve(
    redis: Redis = "redis://127.0.0.1:6379",
    home: Home = None,
    exports: ExportsRoot = None,
    host: Host = "127.0.0.1",
    port: Port = 9310,
    budget_ms: Budget = None,
    runs: Runs = None,
    compile: Compile = None,
    device: Device = None,
    as_json: AsJson = False,
) -> Result:
    """Exit status 0 after SIGTERM or SIGINT; 1 if the home is served already or the configuration is refused."""
    from gnn.online.config import ServingConfig
    from tamiyo.live.bus import secret_of
    from tamiyo.live.service import Place, Service

    settings = resolve(exports=exports, home=home)
    require_home(settings)
    config = ServingConfig.resolve(settings.home, budget_ms=budget_ms, runs=runs, compile=compile, device=device)
    secret = secret_of()
    place = Place(redis, settings.home, _landing_root(settings), host, port)
    alerts = AlertOutbox(settings.home, settings.alert_webhook, settings.ui_url)
    service = Service(place, config, secret, settings.limits, alerts)

    def stop(*_: object) -> None:
        service.stop()
        # an inference or a read that hangs must not keep the process: what was acknowledged is durable, the rest comes again
        ends = threading.Timer(_LONGEST_STOP_S, os._exit, (0,))
        ends.daemon = True
        ends.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    terminal = Terminal(quiet=as_json)
    terminal.print(f"serving {settings.home} on {service.url}; Oona {redis}; messages land in {place.exports}")
    if secret is None:
        terminal.print("no ESPER_LEYLINE_SECRET is set: messages are not checked, commands are not signed")
    service.run()
    return Result({"stopped": True, "exports": str(place.exports)}, printing("stopped: segments are closed"))


def _landing_root(settings: Settings) -> Path:
    """Return the exports root to land in: never the committed sample."""
    if settings.exports_are_sample:
        return DEFAULT_EXPORTS.absolute()
    if settings.exports.resolve() == SAMPLE.resolve():
        raise StorageError(
            f"exports root {settings.exports}: expected one to land in, found the committed sample; name another"
        )
    return settings.exports
