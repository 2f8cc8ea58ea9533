"""A webserver on the exports of a small fleet, started once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.webserver import Webserver


@pytest.fixture(scope="session")
def webserver(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Iterator[Webserver]:
    """The webserver of a fresh home that reads the committed sample."""
    root = tmp_path_factory.mktemp("webserver")
    found = Webserver(home=root / "home", exports=sample, dagster_home=root / "dagster")
    yield found
    found.close()
