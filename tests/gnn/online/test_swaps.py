"""Bundles exchanged under load: every 50 ms, some of them bad, with eight threads deciding; seconds in `make test`, a minute in
`make soak`."""

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import psutil
import pytest

from gnn.bundle.read import Bundle, read_bundle
from gnn.online.config import ServingConfig
from gnn.online.policy import TamiyoPolicy
from gnn.online.snapshot import Snapshot
from schemas.errors import BundleRejected
from tests.gnn.bundle.conftest import Home
from tests.gnn.online.conftest import packet

THREADS = 8
EVERY_S = 0.05


@dataclass
class Load:
    """Threads that decide until they are told to end, each on a run of its own, with a pause after each decision."""

    policy: TamiyoPolicy
    snapshot: Snapshot
    pause_s: float = 0.0
    seen: set[tuple[str, str, str]] = field(default_factory=set)
    faults: list[BaseException] = field(default_factory=list)
    decisions: int = 0
    end: threading.Event = field(default_factory=threading.Event)

    def work(self, run: str) -> None:
        step = 0
        while not self.end.is_set():
            try:
                found = self.policy.decide(packet(step % 50, training_run_id=run), self.snapshot)
            except BaseException as fault:  # noqa: BLE001 - whatever it is, the test shows it
                self.faults.append(fault)
                return
            notes = found.command.annotations
            self.seen.add((found.build_id, notes["build_id"], notes["feature_manifest"]))
            self.decisions += 1
            step += 1
            self.end.wait(self.pause_s)


@pytest.fixture
def bundles(bundle: Bundle, published: Home, tmp_path: Path) -> list[Path]:
    """Two sound bundles, then one without a member and one with a flipped byte."""
    second = published.path / "bundles" / published.inputs("b").build_id
    if not second.exists():
        published.write("b")
    lacking, flipped = tmp_path / "lacking" / bundle.path.name, tmp_path / "flipped" / second.name
    shutil.copytree(bundle.path, lacking)
    (lacking / "gnn_norms.json").unlink()
    shutil.copytree(second, flipped)
    weights = flipped / "tamiyo_gnn_v1.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    return [second, lacking, bundle.path, flipped]


def exchange(load: Load, bundles: Iterator[Path], sound: set[Path], seconds: float) -> tuple[int, int]:
    """Swap a bundle every 50 ms, or as often as it goes; how many were taken and refused."""
    taken = refused = 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not load.faults:
        due, path = time.monotonic() + EVERY_S, next(bundles)
        try:
            assert load.policy.swap(path) == path.name
            assert path in sound
            taken += 1
        except BundleRejected:
            assert path not in sound
            refused += 1
        load.end.wait(max(0.0, due - time.monotonic()))
    return taken, refused


def swap_often(bundle: Bundle, snapshot: Snapshot, bundles: list[Path], seconds: float, pause_s: float = 0.0) -> float:
    """MB by which the process grew between the first quarter and the end."""
    digests = {read_bundle(path).build_id: read_bundle(path).manifest_digest for path in (bundles[0], bundles[2])}
    load = Load(TamiyoPolicy.load(bundle.path, ServingConfig(telemetry_limit=64)), snapshot, pause_s)
    threads = [threading.Thread(target=load.work, args=(f"run-{number}",)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    turns, sound, process = cycle(bundles), {bundles[0], bundles[2]}, psutil.Process()
    try:
        early = exchange(load, turns, sound, seconds / 4)
        before = process.memory_info().rss
        late = exchange(load, turns, sound, seconds * 3 / 4)
    finally:
        load.end.set()
        for thread in threads:
            thread.join()
    assert load.faults == []
    assert {build for build, *_ in load.seen} <= set(digests)
    assert all(said == build and manifest == digests[build] for build, said, manifest in load.seen)
    taken, refused = (a + b for a, b in zip(early, late, strict=True))
    assert taken >= 2
    assert refused >= 1
    grown = (process.memory_info().rss - before) / 2**20
    print(f"{taken} bundles taken, {refused} refused, {load.decisions} decisions; {grown:+.1f} MB")
    return grown


def test_swaps_under_load_mix_nothing(bundle: Bundle, snapshot: Snapshot, bundles: list[Path]) -> None:
    assert swap_often(bundle, snapshot, bundles, 6.0) < 64.0


@pytest.mark.soak
@pytest.mark.parametrize("pause_s", [0.0, THREADS / 25], ids=["without a rest", "25 packets a second"])
def test_a_minute_of_swaps_mixes_nothing_and_keeps_the_memory_flat(
    bundle: Bundle, snapshot: Snapshot, bundles: list[Path], pause_s: float
) -> None:  # fmt: skip
    assert swap_often(bundle, snapshot, bundles, 60.0, pause_s) < 32.0
