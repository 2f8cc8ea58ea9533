"""Train in a process of its own, started through Dagster Pipes: its command, what it says, and how it ends.

The process gets a folder (`gnn.remote.inputs`) and leaves a folder (`gnn.remote.result`); it may be anywhere. What it writes
goes through a named pipe: messages of Dagster Pipes, and plain lines for the log of the step. It ends if that pipe is closed.
"""

import os
import select
import shlex
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
import pyarrow as pa
from dagster._core.errors import DagsterPipesExecutionError
from dagster._core.pipes.utils import extract_message_or_forward_to_file
from dagster_pipes import PipesDefaultMessageWriter

from lake.settings import Settings
from schemas.configuration import TrainingLaunch
from schemas.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

    from gnn.bundle import BuildInputs
    from gnn.graph.dataset import GraphDataset
    from gnn.model.examples import Examples
    from gnn.model.trained import TrainedModel

TRAININGS: Final = "trainings"
PLAIN: Final = "training: "  # what plain lines of progress begin with
_SHOWN_LINES: Final = 30
_SHOWN_CHARACTERS: Final = 400  # of a line
_READ_BYTES: Final = 1 << 16
_DRAIN_SECONDS: Final = 5.0  # after the command has ended, for what it left running
_POLL_SECONDS: Final = 0.2
# a shell that puts the pipe in place of its output and Pipes' parameters behind the command, then becomes that command:
# environment variables do not get through ssh
_SCRIPT: Final = (
    'exec "$@" --dagster-pipes-context "$DAGSTER_PIPES_CONTEXT" --dagster-pipes-messages "$DAGSTER_PIPES_MESSAGES" '
    '>"$0" 2>&1 </dev/null'
)


def command_of(launch: TrainingLaunch, directory: Path) -> list[str]:
    """Return the command that trains from `directory`."""
    ranks = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(launch.processes))
    torchrun = ranks if launch.processes > 1 else ()
    return [*launch.prefix, launch.python or sys.executable, *torchrun, "-m", "gnn.remote", str(directory)]


def train_apart(
    context: dg.AssetExecutionContext,
    settings: Settings,
    build: "BuildInputs",
    dataset: "GraphDataset",
    examples: "Examples",
    catalogue: Mapping[str, pa.Table],
    kernels: "Tensor",
) -> "TrainedModel":
    """Train what `build` names in a process of its own; the arguments are its inputs. Raises TrainingError if it fails."""
    from gnn.remote.inputs import write_inputs
    from gnn.remote.result import read_result

    directory = settings.home / TRAININGS / build.build_id
    sent = write_inputs(
        directory / "inputs",
        build,
        dataset=dataset,
        examples=examples.table,
        unusable=examples.unusable,
        catalogue=catalogue,
        kernels=kernels,
        registries=settings.home / "registries",
        norms=settings.home / "gnn_norms.json",
    )
    told = run_training(context, settings.launch, directory)
    return read_result(directory / "result", told, sent, settings.training, examples.table)


def run_training(context: dg.AssetExecutionContext, launch: TrainingLaunch, directory: Path) -> str:
    """Train from the inputs in `directory`, and return the digest of the result's `result.json`, as the process reported it.

    Raises TrainingError, with the last lines that the process wrote, if it fails or reports nothing.
    """
    command = command_of(launch, directory)
    context.log.info(f"training in a process of its own: {shlex.join(command)}")
    with tempfile.TemporaryDirectory() as folder:
        pipe = Path(folder, "output")
        os.mkfifo(pipe, 0o600)
        output = ChildOutput(pipe, context.log.info)
        client = dg.PipesSubprocessClient(context_injector=dg.PipesEnvContextInjector(), message_reader=output)
        try:
            done = client.run(context=context, command=["/bin/sh", "-c", _SCRIPT, str(pipe), *command])
        except DagsterPipesExecutionError as error:
            raise TrainingError(
                f"{shlex.join(command)}: expected exit status 0, found: {error}; run the training again, it goes on from its "
                f"checkpoints. Its last lines:\n{output.tail}"
            ) from None
        except subprocess.TimeoutExpired:  # the run was interrupted, and the process did not end by itself
            raise dg.DagsterExecutionInterruptedError from None
    return _digest(done.get_custom_messages(), command, output)


def _digest(messages: Sequence[Any], command: Sequence[str], output: "ChildOutput") -> str:
    found = [message["result"] for message in messages if isinstance(message, dict) and isinstance(message.get("result"), str)]
    if len(found) != 1:
        raise TrainingError(
            f"{shlex.join(command)}: expected the digest of one result, found {len(found)}; see that the command passes on its "
            f"arguments and its output. Its last lines:\n{output.tail}"
        )
    return str(found[0])


class ChildOutput(dg.PipesMessageReader):
    """Reads what a process writes into a named pipe: messages go to Dagster, other lines to the log of the step.

    Lines that begin with `training: ` are `say`ed. The last lines are kept.
    """

    def __init__(self, pipe: Path, say: Callable[[str], None]) -> None:
        """Read from `pipe`, once a session begins."""
        self._pipe, self._say = pipe, say
        self._lines: deque[str] = deque(maxlen=_SHOWN_LINES)

    @property
    def tail(self) -> str:
        """The last lines that were no messages."""
        return "\n".join(self._lines) or "(it wrote none)"

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[dict[str, str]]:
        """Read in a thread until the session ends and the pipe is empty; then close the pipe."""
        ended, opened = Event(), os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        thread = Thread(target=self._read, args=(opened, handler, ended), daemon=True)
        thread.start()
        try:
            yield {PipesDefaultMessageWriter.STDIO_KEY: PipesDefaultMessageWriter.STDOUT}
        finally:
            ended.set()
            thread.join()

    def _read(self, opened: int, handler: dg.PipesMessageHandler, ended: Event) -> None:
        """Read lines; after the session, until no process has the pipe open, but for a few seconds only."""
        rest, limit = b"", float("inf")
        try:
            while monotonic() < limit:
                if ended.is_set() and limit == float("inf"):
                    limit = monotonic() + _DRAIN_SECONDS
                ready = select.select([opened], [], [], _POLL_SECONDS)[0]
                data = _available(opened) if ready else None
                if data == b"":  # no process has the pipe open, no longer or not yet
                    if ended.is_set():
                        break
                    ended.wait(_POLL_SECONDS)
                *lines, rest = (rest + (data or b"")).split(b"\n")
                for line in [*lines, *([rest] if len(rest) > _READ_BYTES else [])]:
                    self._take(line, handler)
                rest = rest if len(rest) <= _READ_BYTES else b""
            self._take(rest, handler)
        finally:
            os.close(opened)

    def _take(self, line: bytes, handler: dg.PipesMessageHandler) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        if text:
            extract_message_or_forward_to_file(handler=handler, log_line=text, file=self)  # type: ignore[arg-type]

    def writelines(self, lines: Iterable[str]) -> None:
        """Take a line that is no message."""
        text = "".join(lines).rstrip("\n")[:_SHOWN_CHARACTERS]
        self._lines.append(text)
        if text.startswith(PLAIN):
            self._say(text.removeprefix(PLAIN))
        else:
            print(text, file=sys.stderr)

    def no_messages_debug_text(self) -> str:
        """Say where messages are read from."""
        return "Attempted to read messages from the standard output of the command."


def _available(opened: int) -> bytes | None:
    """Return what can be read now, b"" at the end, None if there is nothing."""
    try:
        return os.read(opened, _READ_BYTES)
    except BlockingIOError:
        return None
