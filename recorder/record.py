"""`record`: carry out a plan. Two phases, whole files, and a journal, so that a killed recording can go on."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import torch

from recorder.clock import Clock
from recorder.exports import Record, encode, write_whole
from recorder.firstphase import first_phase, risks_of
from recorder.hostrun import Records, record_host
from recorder.plan import RecordPlan, target_hosts
from recorder.vocabulary import SNAPSHOTS, snapshot

Progress = Callable[[str], None]

_MIXED: Final = {
    "tolaria/system_state": "binpb",
    "kasmina/seed_state": "ndjson.gz",
    "tamiyo/command": "ndjson.gz",
    "tamiyo/field_report": "ndjson.gz",
}


def extension(folder: str, chosen: str) -> str:
    """The format of a folder's files: the chosen one, but ndjson for Urza; `mixed` packs what is large."""
    if chosen == "mixed":
        return _MIXED.get(folder, "ndjson")
    return chosen if folder != "urza/blueprint" or chosen.startswith("ndjson") else "ndjson"


def write_records(plan: RecordPlan, name: str, records: Records) -> list[Path]:
    """Write one file a folder, each whole; `name` is the files' stem."""
    paths = []
    for folder, items in records.items():
        if items:
            ending = extension(folder, plan.format)
            path = plan.exports / folder / f"{name}.{ending}"
            write_whole(path, encode(items, ending))
            paths.append(path)
    return paths


def write_snapshots(root: Path) -> None:
    """Write Simic's registry snapshots."""
    for name in SNAPSHOTS:
        content = json.dumps(snapshot(name), sort_keys=True, indent=0).encode() + b"\n"
        write_whole(root / "simic" / "registry_snapshot" / f"{name}_registry.json", content)


def _merge(into: Records, more: Records) -> None:
    for folder, items in more.items():
        into.setdefault(folder, []).extend(items)


def _indices(plan: RecordPlan, started: float) -> Iterator[int]:
    index, wanted = 0, target_hosts(plan)
    while (wanted is None or index < wanted) and (plan.minutes is None or time.monotonic() - started < plan.minutes * 60):
        yield index
        index += 1


def record(plan: RecordPlan, progress: Progress = lambda line: None) -> list[Path]:
    """Carry out `plan`; returns the files written. `progress` gets one line at a time."""
    torch.set_num_threads(1)
    started, clock, paths = time.monotonic(), Clock(), []
    write_snapshots(plan.exports)
    sheets = first_phase(plan, clock)
    paths += write_records(plan, f"kernels-s{plan.seed}", sheets)
    progress(f"kernels measured and described in {time.monotonic() - started:.0f} s")
    risks = risks_of(sheets)
    pending: Records = {}
    done: list[int] = []
    for index in _indices(plan, started):
        spec = plan.host(index)
        _merge(pending, record_host(plan, spec, risks, clock))
        done.append(index)
        progress(f"host {index} ({spec.experiment}) done after {time.monotonic() - started:.0f} s")
        if len(done) == 12:
            paths += write_records(plan, f"hosts-s{plan.seed}-{done[0]:04d}-{done[-1]:04d}", pending)
            pending, done = {}, []
    if done:
        paths += write_records(plan, f"hosts-s{plan.seed}-{done[0]:04d}-{done[-1]:04d}", pending)
    return paths


__all__ = ["Record", "RecordPlan", "record"]
