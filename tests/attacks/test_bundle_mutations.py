"""Mutated manifests, registries and norms: refused with the member named, or a bundle that answers. `make soak` does more."""

import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from gnn.bundle.gates import gates
from gnn.bundle.golden import differences
from gnn.bundle.members import ALL
from gnn.bundle.preflight import preflight
from gnn.bundle.read import Bundle, bundle_of, read_bundle
from gnn.bundle.report import BuildReport
from gnn.online.facts import BundleFacts
from schemas.errors import BundleRejected
from tests.attacks.bundles import Members, Victim, forged, write_members
from tests.components import IN_CI

FEW, CI, SOAK = 1_000, 10_000, 200_000
SECONDS = 30.0  # far above what one takes on a busy machine


@dataclass
class Outcomes:
    """What came of many forged bundles; `wrong` says which did not end as they must."""

    sound: Bundle
    wrong: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


def attack(victim: Victim, place: Path, count: int, seed: int) -> Outcomes:
    """Try `count` forged bundles; what loads is written to `place` and preflighted there, as before it would serve."""
    chance, found = random.Random(seed), Outcomes(bundle_of(victim.path, victim.members))
    write_members(place, victim.members)
    for number in range(count):
        label, members = forged(victim, chance)
        began = time.monotonic()
        try:
            _try(victim, place, members, label, found)
        except Exception as error:  # noqa: BLE001 - any other error is what this looks for
            found.wrong.append(f"seed {seed} number {number} {label}: {type(error).__name__}: {str(error)[:200]}")
        took = time.monotonic() - began
        found.slowest = max(found.slowest, took)
        if took > SECONDS:
            found.wrong.append(f"seed {seed} number {number} {label}: slow")
    return found


def _try(victim: Victim, place: Path, members: Members, label: str, found: Outcomes) -> None:
    try:
        bundle = bundle_of(place, members)
    except BundleRejected as refused:
        text = str(refused)
        text.encode()  # what can't be printed can't be told
        found.refused[label] += 1
        if not any(name in text for name in ALL):
            found.wrong.append(f"{label}: no member is named in {text[:300]}")
        return
    if label.endswith("bare") and members != victim.members:
        found.wrong.append(f"{label}: loaded, though its bytes are others")
        return
    changed = {name: data for name, data in members.items() if data != victim.members[name]}
    write_members(place, changed)
    try:
        report = preflight(place)
    finally:
        write_members(place, {name: victim.members[name] for name in changed})
    if not report.clean:
        found.refused[f"{label}, preflight"] += 1
        return
    found.answered[label] += 1
    _use(bundle, found.sound)


def _use(bundle: Bundle, sound: Bundle) -> None:
    """All that is done with a bundle before it decides; its network is the one that the victim's weights make."""
    BundleFacts.of(bundle)
    assert bundle.calibration.temperature > 0
    judged = gates(bundle.manifest)
    shown = BuildReport(bundle.path, bundle.manifest, judged, serving=False)
    assert len(shown.reasons) == sum(not gate.passed for gate in judged)
    assert all(isinstance(value, float) for value in shown.figures.values())
    state = sound.network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in bundle.network.state_dict().items())
    assert differences(bundle.network, sound.golden, bundle.norms.priors) == {}


def test_forged_bundles_are_refused_or_answer(victim: Victim, tmp_path: Path) -> None:
    count = int(os.environ.get("FORGED_BUNDLES", CI if IN_CI else FEW))
    found = attack(victim, tmp_path / "bundle", count, seed=1)
    assert found.wrong == []
    assert found.refused.total() + found.answered.total() == count
    assert found.refused.total() > count // 2 and found.answered.total() > 0
    read_bundle(victim.path)


@pytest.mark.soak
def test_many_forged_bundles(victim: Victim, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = attack(victim, tmp_path / "bundle", SOAK, seed=2)
    with capsys.disabled():
        print(f"\n{SOAK} forged bundles: {found.refused.total()} refused, slowest {found.slowest:.2f} s; answered:")
        print(dict(found.answered.most_common()))
    assert found.wrong == []
