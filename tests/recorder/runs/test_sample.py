"""The committed sample keeps what the contracts and the design promise of it."""

import math
from collections import Counter, defaultdict

import pytest

from recorder.data import DATA_SETS
from recorder.exports import read_table
from recorder.hosts import ARCHITECTURES
from recorder.runs.card import data_card, read_runs
from recorder.runs.firstphase import known_kernels
from recorder.runs.reliability import class_counts, reliability, replicates
from schemas.contracts import FOLDERS
from schemas.decode import decode_file
from schemas.kernels import KERNELS
from schemas.splits import HELD_OUT_DATA_SET, SPLITS, split_of


@pytest.fixture(scope="module")
def pairs(sample):
    """Every counterfactual of the sample with its outcomes."""
    return replicates(sample)


@pytest.fixture(scope="module")
def runs(sample):
    """Every run of the sample."""
    return read_runs(sample)


def test_it_is_small_and_holds_nothing_but_exports(sample):
    files = [path for path in sample.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12 * 2**20
    assert all(str(path.parent.relative_to(sample)) in FOLDERS for path in files)


def test_no_record_of_it_is_rejected_or_unknown(sample):
    for name, folder in FOLDERS.items():
        for path in sorted((sample / name).iterdir()) if (sample / name).is_dir() else ():
            for part in decode_file(path, folder, file=path.name, digest=""):
                assert not any(table.num_rows for table in part.rejects.values()), path
                assert not part.unknown_fields, path


def test_every_split_has_hosts(runs):
    splits = Counter(split_of(run.host, run.data_set, HELD_OUT_DATA_SET) for run in runs.values())
    assert len(runs) >= 200
    assert set(splits) == set(SPLITS)
    assert min(splits.values()) >= 15
    assert {run.data_set for run in runs.values()} == set(DATA_SETS)
    assert {run.architecture for run in runs.values()} == set(ARCHITECTURES)
    assert HELD_OUT_DATA_SET in DATA_SETS


def test_it_holds_three_thousand_outcomes(pairs):
    assert len(pairs) >= 3000
    assert len({pair.kernel for pair in pairs}) == len(KERNELS)
    assert {pair.horizon for pair in pairs} == {50, 100, 200}


def test_the_identity_does_nothing_and_labels_are_reliable(pairs):
    identity = [o.uplift for pair, outcomes in pairs.items() if pair.kernel == "kernel-identity" for o in outcomes]
    assert identity
    assert max(abs(u) for u in identity if math.isfinite(u)) <= 1e-6
    found = reliability(pairs)
    assert found is not None
    assert found.of_two >= 0.85


def test_every_risk_class_occurs(pairs):
    assert set(class_counts(pairs)) == {"none", "low", "medium", "high", "critical"}


def test_at_least_eight_kernels_at_two_sites_of_a_state(sample):
    sites, kernels = defaultdict(set), set()
    for report in read_table(sample, "tamiyo/field_report", "tamiyo.field_report").to_pylist():
        if "-own-" not in report["command_id"]:
            sites[report["packet_id"]].add(report["seed_id"])
        kernels.add(report["blueprint_id"])
    assert len(kernels) >= 8
    assert kernels <= set(KERNELS)
    assert all(2 <= len(found) <= 4 for found in sites.values())


def test_kernels_sheets_are_older_than_every_packet_that_carries_the_kernel(sample):
    sheets = {}
    for row in read_table(sample, "urabrask/bsds", "urabrask.bsds").to_pylist():
        sheets[row["blueprint_id"]] = min(row["issued_at_ns"], sheets.get(row["blueprint_id"], row["issued_at_ns"]))
    graphs = {row["blueprint_id"] for row in read_table(sample, "urza/blueprint", "urza.blueprint").to_pylist()}
    for seed in read_table(sample, "kasmina/seed_state", "kasmina.seed_state").to_pylist():
        assert seed["blueprint_id"] in graphs
        assert sheets[seed["blueprint_id"]] < seed["timestamp_ns"]


def test_the_next_recording_takes_its_kernels_from_it(sample):
    known = known_kernels(sample)
    assert known.described == set(KERNELS)
    assert set(known.risks) <= set(KERNELS)
    assert len(known.risks) == len(KERNELS)


def test_its_card_is_the_one_that_is_printed_from_its_files(sample, repository):
    card = (repository / "docs" / "recorder" / "data-card.md").read_text()
    assert data_card(sample) in card
