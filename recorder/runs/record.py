"""Carry out a recording plan (`record`) in two phases, with whole files and a journal, so that a killed recording can go on."""

import ctypes
import gc
import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import active_children, get_context, resource_tracker
from pathlib import Path
from threading import current_thread, main_thread
from types import MappingProxyType
from typing import Final

import torch

from recorder.exports import Record, Records, encode, parquet_files, write_whole
from recorder.runs.firstphase import Runner, first_phase, known_kernels, risks_of, run_sequentially
from recorder.runs.hostrun import record_host
from recorder.runs.journal import Journal, load_journal, publish
from recorder.runs.plan import RecordPlan, describe, target_hosts
from recorder.speech.clock import Clock
from recorder.speech.vocabulary import SNAPSHOTS, snapshot

__all__ = ["Progress", "Record", "RecordPlan", "record"]

_MALLOC_OPTIONS: Final = MappingProxyType({-3: 2**30, -1: 2**30, -2: 2**26})  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD
_MIXED: Final = MappingProxyType(
    {
        "tolaria/system_state": "ndjson.zst",
        "kasmina/seed_state": "ndjson.zst",
        "tamiyo/command": "ndjson.gz",
        "tamiyo/field_report": "ndjson.zst",
        "tezzeret/kernel": "binpb",
        "urabrask/bsds": "wal",
        "urza/blueprint": "ndjson.zst",
        "weatherlight/telemetry": "ndjson.gz",
    }
)


@dataclass(frozen=True)
class Progress:
    """The progress of a recording. `remaining_s` is an estimate, None before there is one; `hosts` is None without a goal."""

    message: str
    done: int = 0
    hosts: int | None = None
    outcomes: int = 0
    elapsed_s: float = 0.0
    remaining_s: float | None = None

    def __str__(self) -> str:
        """Return one line for a terminal."""
        if not self.done:
            return self.message
        of = f" of {self.hosts}" if self.hosts is not None else ""
        left = f", about {self.remaining_s:.0f} s left" if self.remaining_s is not None else ""
        return f"{self.done}{of} hosts, {self.outcomes} outcomes, {self.elapsed_s:.0f} s{left}: {self.message}"


@dataclass
class _Session:
    plan: RecordPlan
    progress: Callable[[Progress], None]
    journal: Journal
    started: float = field(default_factory=time.monotonic)
    pending: dict[int, Records] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    recorded: int = 0
    prepared: float = 0.0  # seconds that the first phase took
    outcomes: int = 0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def has_time(self, running: int) -> bool:
        """Return whether one more host fits into the plan's minutes, at the rate so far; the first one always does."""
        if self.plan.minutes is None or not self.recorded:
            return True
        pace = (self.elapsed - self.prepared) / self.recorded
        return self.elapsed + pace * (1 + running // self.plan.workers) <= self.plan.minutes * 60

    def remaining(self) -> float | None:
        goal = target_hosts(self.plan)
        by_hosts = None
        if goal is not None and self.recorded:
            left = goal - len(self.journal.done) - len(self.pending)
            by_hosts = (self.elapsed - self.prepared) / self.recorded * max(left, 0)
        by_clock = None if self.plan.minutes is None else max(self.plan.minutes * 60 - self.elapsed, 0.0)
        known = [value for value in (by_hosts, by_clock) if value is not None]
        return min(known) if known else None

    def finished(self, index: int, records: Records) -> None:
        """Take in a host's records, report it, and write a batch when it is full."""
        self.pending[index] = records
        self.recorded += 1
        self.outcomes += len(records.get("tamiyo/field_report", ()))
        done = len(self.journal.done) + len(self.pending)
        message = f"host {index}, {self.plan.host(index).experiment}"
        goal = target_hosts(self.plan)
        self.progress(Progress(message, done, goal, self.outcomes, self.elapsed, self.remaining()))
        if len(self.pending) >= self.plan.rotate_hosts:
            self.flush()

    def flush(self) -> None:
        """Write the pending hosts as one file per folder."""
        if not self.pending:
            return
        indices, merged = sorted(self.pending), Records()
        for index in indices:
            for folder, items in self.pending[index].items():
                merged.setdefault(folder, []).extend(items)
        stem = f"hosts-s{self.plan.seed}-{indices[0]:04d}-{indices[-1]:04d}"
        files = files_of(self.plan, stem, merged)
        noted = self.journal.model_copy(update={"done": sorted({*self.journal.done, *indices})})
        self.journal = publish(self.plan, noted, files)
        self.files += [path for path, _ in files]
        self.pending = {}


def extension(folder: str, chosen: str) -> str:
    """Return the format of a folder's files: the chosen one, but ndjson for Urza; `mixed` packs what is large."""
    if chosen == "mixed":
        return _MIXED.get(folder, "ndjson")
    return chosen if folder != "urza/blueprint" or chosen.startswith("ndjson") else "ndjson"


def files_of(plan: RecordPlan, stem: str, records: Records) -> list[tuple[Path, bytes]]:
    """Return the path and content of the files of a batch: one per folder, or one per contract table for Parquet."""
    files = []
    for folder, items in records.items():
        ending = extension(folder, plan.format)
        if items and ending == "parquet":
            files += [(plan.exports / folder / name, content) for name, content in parquet_files(folder, stem, items)]
        elif items:
            files.append((plan.exports / folder / f"{stem}.{ending}", encode(items, ending)))
    return files


def write_snapshots(root: Path) -> None:
    """Write Simic's registry snapshots."""
    for name in SNAPSHOTS:
        content = json.dumps(snapshot(name), sort_keys=True, indent=0).encode() + b"\n"
        write_whole(root / "simic" / "registry_snapshot" / f"{name}_registry.json", content)


def _describe_kernels(session: _Session, run: Runner) -> dict[str, float]:
    """Carry out the first phase, once per recording; its risks are kept in the journal."""
    if session.journal.risks is not None:
        return session.journal.risks
    known = known_kernels(session.plan.exports)
    records = first_phase(session.plan, known, run)
    noted = session.journal.model_copy(update={"risks": {**known.risks, **risks_of(records)}})
    files = files_of(session.plan, f"kernels-s{session.plan.seed}", records)
    session.journal = publish(session.plan, noted, files)
    session.files += [path for path, _ in files]
    session.progress(Progress(f"kernels measured on hosts of their own in {session.elapsed:.0f} s"))
    return session.journal.risks or {}


def _indices(session: _Session) -> Iterator[int]:
    goal, done, index = target_hosts(session.plan), set(session.journal.done), 0
    while goal is None or index < goal:
        if index not in done:
            yield index
        index += 1


def record_one(plan: RecordPlan, index: int, risks: dict[str, float]) -> Records:
    """Return the records of host `index`, by folder, as every recording process does."""
    records = record_host(plan, plan.host(index), risks, Clock())
    _settle()
    return records


@cache
def _settle() -> None:
    """Exclude what the first host brought in from every later garbage collection.

    That is torch's compiler and the data: each collection would look through their million objects again.
    """
    gc.collect()
    gc.freeze()


def _in_process(session: _Session, risks: dict[str, float]) -> None:
    for index in _indices(session):
        if not session.has_time(0):
            return
        session.finished(index, record_one(session.plan, index, risks))


def _with_workers(session: _Session, risks: dict[str, float], pool: ProcessPoolExecutor) -> None:
    running: dict[Future[Records], int] = {}
    waiting = _indices(session)
    while True:
        while len(running) < session.plan.workers and session.has_time(len(running)):
            index = next(waiting, None)
            if index is None:
                break
            running[pool.submit(record_one, session.plan, index, risks)] = index
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            session.finished(running.pop(future), future.result())


def prepare() -> None:
    """Set what every recording process needs: one thread, memory that is kept, and attention in eval mode as in training.

    Attention's own fast path is slower on small heads.
    """
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)
    _keep_memory()


def _keep_memory() -> None:
    """Let the C library keep what is freed: stacked tensors would go back to the system and come again, page by page."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for option, value in _MALLOC_OPTIONS.items():
            library.mallopt(option, value)


@contextmanager
def _workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """Yield recording processes that end with the body, at once if it raises.

    They ignore SIGINT from the start: Ctrl-C reaches every process of a terminal, and only this one is to answer it.
    """
    others = set(active_children())
    resource_tracker.ensure_running()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if current_thread() is main_thread() else None
    try:
        pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=prepare)
        for _ in range(count):  # each call starts one, as long as none is idle yet
            pool.submit(prepare)
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
    try:
        yield pool
    except BaseException:
        for child in set(active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def record(plan: RecordPlan, progress: Callable[[Progress], None] = lambda _: None) -> list[Path]:
    """Carry out `plan` from where an earlier call with the same seed and grid stopped; return the files written.

    What is complete is written even when the recording is interrupted. Raises RecordingError if the journal under the exports
    root is damaged or belongs to another grid.
    """
    prepare()
    session = _Session(plan, progress, load_journal(plan))
    for line in describe(plan, already=len(session.journal.done)):
        progress(Progress(line))
    write_snapshots(plan.exports)
    with ExitStack() as stack:
        stack.callback(session.flush)
        if plan.workers == 1:
            risks = _describe_kernels(session, run_sequentially)
            session.prepared = session.elapsed
            _in_process(session, risks)
        else:
            pool = stack.enter_context(_workers(plan.workers))
            risks = _describe_kernels(session, lambda function, many: pool.map(function, *zip(*many, strict=True)))
            session.prepared = session.elapsed
            _with_workers(session, risks, pool)
    return session.files
