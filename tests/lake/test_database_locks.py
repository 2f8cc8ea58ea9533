"""Locks in PostgreSQL: they hold between machines, which share no kernel, and end with the process that holds them."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lake.durable.locks import POSTGRES, DatabaseLock, PathLock, alive, database, is_alive
from lake.writes import LOCK, bucket_lock, hold_writes
from schemas.errors import StorageError
from tests.postgres import require_postgres, running_postgres

HOLDER = """
import sys
from lake.durable.locks import alive
with alive("run-1"):
    print("holds", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    require_postgres("a lock across machines")
    with running_postgres(tmp_path_factory.mktemp("postgres")) as found:
        yield found


@pytest.fixture
def on_cluster(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of a cluster; the URL as locks take it."""
    monkeypatch.setenv(POSTGRES, url)
    return database() or ""


def another_machine(url: str, path: Path, *, shared: bool = False) -> "contextlib.closing[DatabaseLock]":
    """A holder that shares the database and no kernel with us."""
    return contextlib.closing(DatabaseLock(url, str(path.absolute()), shared=shared))


def test_a_writer_on_another_machine_is_waited_for(on_cluster: str, tmp_path: Path) -> None:
    with another_machine(on_cluster, tmp_path / LOCK) as theirs:
        assert theirs.take_if_free()
        for bucket in (None, 4):
            with pytest.raises(TimeoutError), hold_writes(tmp_path, "ours", _impatient, bucket=bucket):
                pytest.fail("two writers")
    with hold_writes(tmp_path, "ours", pytest.fail), another_machine(on_cluster, tmp_path / LOCK) as theirs:
        assert not theirs.take_if_free()


def test_buckets_of_two_machines_are_written_beside_each_other(on_cluster: str, tmp_path: Path) -> None:
    with (
        another_machine(on_cluster, tmp_path / LOCK, shared=True) as home,
        another_machine(on_cluster, bucket_lock(tmp_path, 4)) as bucket,
    ):
        assert home.take_if_free() and bucket.take_if_free()
        with hold_writes(tmp_path, "ours", pytest.fail, bucket=5):
            pass
        with pytest.raises(TimeoutError), hold_writes(tmp_path, "ours", _impatient, bucket=4):
            pytest.fail("one bucket twice")


def test_what_the_database_refuses_holds_no_lock_of_the_kernel(
    on_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with another_machine(on_cluster, tmp_path / "lock") as theirs, contextlib.closing(PathLock(tmp_path / "lock")) as ours:
        assert theirs.take_if_free() and not ours.take_if_free()
        monkeypatch.delenv(POSTGRES)
        with contextlib.closing(PathLock(tmp_path / "lock")) as alone:
            assert alone.take_if_free()


def test_a_process_is_alive_until_it_is_killed(on_cluster: str, repository: Path) -> None:
    assert is_alive("run-1") is False
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "holds\n"
        assert is_alive("run-1") is True and is_alive("run-2") is False
        with pytest.raises(StorageError, match="run-1: expected one process of this name"), alive("run-1"):
            pytest.fail("two of one name")
        child.kill()
        child.wait()
        while is_alive("run-1"):  # the database sees the closed connection by itself
            pass


def test_without_a_database_nobody_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(POSTGRES, raising=False)
    with alive("run-1"):
        assert is_alive("run-1") is None


def test_a_database_that_is_away_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    require_postgres("a lock across machines")
    monkeypatch.setenv(POSTGRES, "postgresql+psycopg2://tamiyo@127.0.0.1:1/postgres")
    with pytest.raises(StorageError, match="TAMIYO_POSTGRES: expected a PostgreSQL that answers"):
        PathLock(tmp_path / "lock")


def _impatient(_: str) -> None:
    raise TimeoutError
