"""A Redis for each test, and a place to serve."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tamiyo.live.service import Place
from tests.components import program
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
