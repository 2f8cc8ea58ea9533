"""Train from a folder of inputs: `python -m gnn.remote DIRECTORY`, or `torchrun --nproc-per-node N -m gnn.remote DIRECTORY`.

Reads `DIRECTORY/inputs`, keeps `DIRECTORY/checkpoints`, and writes `DIRECTORY/result`, whole or not at all. After any kill the
same command goes on from the checkpoints, with the same result. Started by Dagster Pipes, it reports to the run that started
it, on standard output, and ends when nobody reads that any more. Exit status: 0, or 1 with the reason on standard error.
"""

import argparse
import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from dagster_pipes import (
    DAGSTER_PIPES_CONTEXT_CLI_ARGUMENT,
    DAGSTER_PIPES_MESSAGES_CLI_ARGUMENT,
    PipesCliArgsParamsLoader,
    open_dagster_pipes,
)

from gnn.model.experiment import train, train_share
from gnn.model.ranks import Ranks
from gnn.model.training import Progress
from gnn.remote.inputs import TrainingInputs, read_inputs
from gnn.remote.result import write_result
from schemas.configuration import TrainingConfig
from schemas.errors import TamiyoError

INPUTS: Final = "inputs"
CHECKPOINTS: Final = "checkpoints"
RESULT: Final = "result"
_SECONDS_BETWEEN_LINES: Final = 10.0
_BEAT_SECONDS: Final = 2.0


def run(directory: Path, environment: Mapping[str, str], say: Callable[[str], None]) -> str | None:
    """Do this process's share; return the digest of the result's `result.json` from the first process, None from others."""
    inputs, checkpoints = read_inputs(directory / INPUTS), directory / CHECKPOINTS
    with Ranks.joined(environment, inputs.config.device) as ranks:
        progress = _progress(say, ranks)
        say(f"process {ranks.rank} of {ranks.size} trains on {_device(inputs.config)} with torch {torch.__version__}")
        if ranks.rank:
            train_share(
                ranks, inputs.dataset, inputs.examples, inputs.config, checkpoints, progress, inputs.priors, inputs.kernels
            )
            return None
        return _trained(inputs, ranks, directory, progress)


def _trained(inputs: TrainingInputs, ranks: Ranks, directory: Path, progress: Progress) -> str:
    config: TrainingConfig = inputs.config
    trained = train(
        inputs.dataset,
        inputs.examples,
        config,
        directory / CHECKPOINTS,
        progress,
        unusable=inputs.unusable,
        priors=inputs.priors,
        kernels=inputs.kernels,
        ranks=ranks,
    )
    return write_result(directory / RESULT, trained, inputs.digest, processes=ranks.size)


def _device(config: TrainingConfig) -> str:
    return str(torch.cuda.get_device_name()) if config.device == "cuda" else "the CPU"


def _progress(say: Callable[[str], None], ranks: Ranks) -> Progress:
    """Return a callback that says how far a training is, at most one line every few seconds."""
    said = -_SECONDS_BETWEEN_LINES
    who = f"process {ranks.rank} of {ranks.size}: " if ranks.size > 1 else ""

    def progress(what: str, done: int, of: int) -> None:
        nonlocal said
        if time.monotonic() - said >= _SECONDS_BETWEEN_LINES or done == of:
            said = time.monotonic()
            say(f"{who}{what}: epoch {done} of at most {of}")

    return progress


@contextlib.contextmanager
def _beating() -> Iterator[None]:
    """Write an empty line now and then, and end this process at once if nobody reads standard output any more.

    So the training ends soon after the run that started it, however that ended, and on whatever machine it is.
    """
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT_SECONDS):
            try:
                sys.stdout.write("\n")
                sys.stdout.flush()
            except OSError:
                os._exit(1)

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def main(arguments: Sequence[str]) -> int:
    """Train; report to the run that started this process, if it was started by one."""
    parser = argparse.ArgumentParser(prog="python -m gnn.remote", description="Train from a folder of inputs.")
    parser.add_argument("directory", type=Path, help="folder with the folder `inputs`")
    for option in (DAGSTER_PIPES_CONTEXT_CLI_ARGUMENT, DAGSTER_PIPES_MESSAGES_CLI_ARGUMENT):
        parser.add_argument(option, help=argparse.SUPPRESS)
    directory: Path = parser.parse_args(arguments).directory
    loader = PipesCliArgsParamsLoader()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a kill at any moment does no harm: checkpoints appear whole or not at all
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, products on a GPU are not the same every time

    def plain(text: str) -> None:
        print(f"training: {text}", flush=True)

    if not loader.is_dagster_pipes_process():
        said = run(directory, os.environ, plain)
        if said is not None:
            plain(f"the result is in {directory / RESULT}; its result.json has SHA-256 {said}")
        return 0
    with _beating():
        if int(os.environ.get("RANK", 0)):
            run(directory, os.environ, plain)
            return 0
        with open_dagster_pipes(params_loader=loader) as pipes:
            digest = run(directory, os.environ, pipes.log.info)
            pipes.report_custom_message({"result": digest})
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except TamiyoError as error:
        sys.exit(f"training: {error}")
