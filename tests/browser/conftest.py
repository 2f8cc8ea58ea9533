"""A webserver on the exports of a small fleet, started once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.webserver import Webserver


@pytest.fixture(scope="session")
def webserver(tmp_path_factory: pytest.TempPathFactory, some_hosts: Path) -> Iterator[Webserver]:
    """The webserver of a fresh home that reads a part of the committed sample."""
    root = tmp_path_factory.mktemp("webserver")
    found = Webserver(home=root / "home", exports=some_hosts, dagster_home=root / "dagster")
    yield found
    found.close()
