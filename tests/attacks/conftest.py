"""One small sound bundle for each module of attacks, and copies of it to break."""

import shutil
from pathlib import Path

import pytest

from tests.attacks.bundles import Victim, small_bundle


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    return Victim.of(small_bundle(tmp_path_factory.mktemp("victim")))


@pytest.fixture
def bundle(victim: Victim, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(victim.path, tmp_path / "bundles" / victim.path.name))
