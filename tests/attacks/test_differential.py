"""Every format makes the same of the same records and faults, and damage to bytes costs what it touched, and is told."""

import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lake.exports.folders import Export
from lake.ingest.audit import Audit
from schemas.contracts import FOLDERS
from schemas.decode import decode_file
from schemas.decode.read.isolate import Isolated
from tests.attacks.differential import LIMITS, REPORTS, encoded, world
from tests.attacks.mutations import damage
from tests.schemas.decoding import DIGEST, Result, decode

TABLE = "tamiyo.field_report"
GROUP = 6
SLOW = 20.0


@dataclass
class Campaign:
    """Counts over many damaged files. `over_lost`: files whose accounts balance though rows are lost."""

    files: int = 0
    crashes: list[str] = field(default_factory=list)
    neighbours_lost: list[str] = field(default_factory=list)
    over_lost: list[str] = field(default_factory=list)
    unbalanced: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def wrong(self) -> list[str]:
        """Everything that must not be."""
        return [*self.crashes, *self.neighbours_lost, *self.over_lost, *self.unbalanced, *self.differing]

    def __str__(self) -> str:
        return (
            f"{self.files} damaged files: {len(self.crashes)} crashes, {len(self.neighbours_lost)} with good neighbours lost, "
            f"{len(self.over_lost)} accounts that balance over lost rows, {len(self.unbalanced)} unbalanced, "
            f"{len(self.differing)} worlds in which formats differ; damage {dict(self.kinds.most_common())}; "
            f"rejects {dict(self.reasons.most_common())}"
        )


def lost(root: Path, name: str, data: bytes) -> int:
    """Records of a decoded file that the audit misses."""
    path = root / name
    path.write_bytes(data)
    folder = FOLDERS[REPORTS]
    export = Export(path, f"{REPORTS}/{name}", REPORTS, DIGEST, len(data), (0, 0, 0, 0))
    audit = Audit(folder, LIMITS, [export])
    for chunk in decode_file(path, folder, file=export.file, digest=DIGEST, limits=LIMITS):
        audit.note(chunk)
    return audit.judge(export, folder.extension(name) or "").lost


def content(result: Result) -> list[str]:
    return result.content().get(TABLE, [])


def same_in_every_format(root: Path, chance: random.Random, label: str, campaign: Campaign) -> None:
    """Rows, reasons of rejects and the account of one world, in every format that can hold it."""
    found = world(chance)
    results = {name: decode(root, REPORTS, name, b"".join(parts), LIMITS) for name, parts in encoded(found, chance).items()}
    base = results["x.ndjson"]
    for name, result in results.items():
        account = (content(result), result.reasons, result.rows_read, result.rejected)
        if account != (content(base), base.reasons, base.rows_read, base.rejected):
            campaign.differing.append(f"{label} {name}: {result.rejects} but x.ndjson {base.rejects}")
        if not result.balanced() or sum(result.rows_read.values()) != len(found.rows):
            campaign.unbalanced.append(f"{label} {name}")
    for name, parts in encoded(found, chance).items():
        if lost(root, name, b"".join(parts)):
            campaign.unbalanced.append(f"{label} {name}: the audit misses records of a sound file")


def ids(result: Result) -> set[str]:
    return {row["report_id"] for row in result.rows(TABLE)}


def after_damage(root: Path, chance: random.Random, label: str, campaign: Campaign) -> None:
    """One file of sound records, damaged in one place: what it did not touch is there, and the account holds."""
    found = world(chance)
    found.texts = {}
    for name, parts in encoded(found, chance, GROUP).items():
        whole = decode(root, REPORTS, name, b"".join(parts), LIMITS)
        data, touched, kind = damage(name, parts, chance)
        campaign.files += 1
        campaign.kinds[f"{name.removeprefix('x')} {kind}"] += 1
        began = time.monotonic()
        with Isolated() as attempt:
            result = decode(root, REPORTS, name, data, LIMITS)
            missed = lost(root, name, data)
        if attempt.error is not None:
            campaign.crashes.append(f"{label} {name} {kind}: {attempt.text}")
            continue
        if time.monotonic() - began > SLOW:
            campaign.crashes.append(f"{label} {name} {kind}: slow")
        campaign.reasons.update(result.reasons)
        good = untouched(name, parts, touched, [row["report_id"] for row in found.rows]) & ids(whole)
        if not result.balanced():
            campaign.unbalanced.append(f"{label} {name} {kind}")
        gone = good - ids(result)
        if gone:
            campaign.neighbours_lost.append(f"{label} {name} {kind}: {sorted(gone)}")
            if result.balanced() and not missed:
                campaign.over_lost.append(f"{label} {name} {kind}: {sorted(gone)}")
        if missed:
            campaign.unbalanced.append(f"{label} {name} {kind}: the audit misses {missed}")
        counted = len(result.rows(TABLE)) + sum(result.rejected.values())
        if name == "x.parquet" and kind == "pages" and counted != len(found.rows):
            campaign.over_lost.append(f"{label} {name} {kind}: {counted} rows counted of {len(found.rows)}")


def untouched(name: str, parts: list[bytes], touched: set[int], names: list[str | None]) -> set[str | None]:
    """Ids of the records in pieces that the damage did not touch; of a Parquet file a piece is a row group."""
    step = 1 if name in ("x.ndjson", "x.binpb", "x.wal") else GROUP
    # without a checksum nobody sees that the last line end of a frame became another byte, which joins the next line to it
    joined = {(piece + 1) * GROUP for piece in touched if name.endswith(".zst") and not parts[piece][4] & 4}
    return {one for row, one in enumerate(names) if row // step not in touched and row not in joined}


def run(root: Path, worlds: int, seed: int) -> Campaign:
    campaign = Campaign()
    for number in range(worlds):
        chance = random.Random(seed * 1_000_003 + number)
        label = f"seed {seed} world {number}"
        same_in_every_format(root, chance, label, campaign)
        after_damage(root, chance, label, campaign)
    return campaign


def test_formats_agree_and_damage_costs_only_itself(tmp_path: Path) -> None:
    campaign = run(tmp_path, 40, seed=1)
    assert campaign.wrong() == []
    assert campaign.files > 180 and campaign.reasons.total() > 100


@pytest.mark.soak
def test_many_worlds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    campaign = run(tmp_path, int(os.environ.get("SOAK_FILES", "10000")) // 5, seed=2)
    with capsys.disabled():
        print(f"\n{campaign}")
    assert campaign.wrong() == []
