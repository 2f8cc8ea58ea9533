"""A Redis for each test, and a place to serve."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lake.store.table_store import TableStore
from tamiyo.live.service import Place
from tests.components import program
from tests.gnn.bundle.conftest import Home, published, trained  # noqa: F401 - fixtures
from tests.gnn.online.conftest import metadata_tables
from tests.tamiyo.live.redis_server import RedisServer


@pytest.fixture
def oona(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(program("redis-server", purpose="the Oona service"), folder)
    yield server
    server.kill()


@pytest.fixture
def client(oona: RedisServer) -> Any:
    return oona.client()


@pytest.fixture
def place(oona: RedisServer, tmp_path: Path) -> Place:
    return Place(oona.url, tmp_path / "home", tmp_path / "exports")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, published: Home) -> Path:  # noqa: F811
    """A home with two bundles and Urza's and Urabrask's tables; nothing serves yet."""
    home = tmp_path_factory.mktemp("served") / "home"
    shutil.copytree(published.path, home, symlinks=True)
    Home(home, published.trained, published.store).write("b")
    for name, rows in metadata_tables().items():
        TableStore(home).write(name, rows)
    return home
