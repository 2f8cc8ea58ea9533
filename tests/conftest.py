"""Fixtures that more than one mirror of a package needs."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import hypothesis
import pytest

from tests.components import required
from tests.exports import part_of
from tests.webhook import Webhook

REPOSITORY = Path(__file__).resolve().parents[1]

# no seconds are asserted: the first example may import scipy, and other work may hold the cores
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Small matrices are slower on many threads, and two workers share two cores.

    A command in the background of a shell is started with SIGINT ignored, sometimes SIGTERM too, and hands that on to the
    processes that the tests start and stop.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


# Files that take minutes, longest first: with `--no-loadscope-reorder` they are given out in this order, before all others, so
# that no worker ends with one of them while the other has nothing left.
LONGEST: Final = (
    "tamiyo_assets/test_arrivals.py",
    "cluster/test_cluster.py",
    "browser/test_fresh_home.py",
    "tamiyo_assets/test_sensors.py",
    "tamiyo_assets/test_retired_runs.py",
    "tamiyo_assets/test_run.py",
    "simulation/test_simulation.py",
    "attacks/test_bundle_mutations.py",
    "tamiyo_assets/test_alerting.py",
    "tamiyo_assets/test_checks_of_runs.py",
    "tamiyo_assets/test_by_run.py",
    "gnn/model/test_experiment.py",
    "tamiyo/live/test_live_figures.py",
    "tamiyo/test_stopping.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files come first; the order of all others stays."""
    place = {REPOSITORY / "tests" / name: number for number, name in enumerate(LONGEST)}
    gone = [path.name for path in place if not path.is_file()]
    if gone:
        raise pytest.UsageError(
            f"LONGEST in tests/conftest.py: expected test files, found no {', '.join(gone)}; rename them there too"
        )
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def sample() -> Path:
    """The committed sample of recorded training."""
    return REPOSITORY / "recorder" / "sample"


@pytest.fixture(scope="session")
def some_hosts(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's kernels and its last two batches of hosts: a small export, of every data set and architecture."""
    return part_of(sample, tmp_path_factory.mktemp("some") / "exports", batches=2)


@pytest.fixture(scope="session")
def esper_exports() -> Path:
    """Real exports of the existing system: TAMIYO_TEST_EXPORTS, else those that lie beside the checkout.

    They are not part of the repository.
    """
    root = Path(os.environ.get("TAMIYO_TEST_EXPORTS") or REPOSITORY.parent / "shared" / "exports" / "esper")
    reason = f"exports of the existing system are not at {root}; set TAMIYO_TEST_EXPORTS"
    return required(root if root.is_dir() else None, reason)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """A local webhook."""
    found = Webhook()
    yield found
    found.close()
