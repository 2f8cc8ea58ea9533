"""Where a home may lie, and what is said when its disk is full."""

import errno
import sqlite3
from pathlib import Path

import pytest

from lake.settings import Settings, require_home, require_place
from lake.store.failures import disk_full
from schemas.errors import StorageError


@pytest.mark.parametrize("name", ["b[x]", "q?x", "p%20x", "a\\b", "new\nline", "tab\there", "d" * 500, "byte\udcff"])
def test_a_path_that_databases_read_otherwise_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(StorageError, match="expected a path without") as caught:
        require_place(Path("/home", name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["100% #1 it's {y} *z ünï :a=b&c;d", "d" * 60])
def test_other_paths_are_taken(tmp_path: Path, name: str) -> None:
    require_home(Settings(exports=tmp_path, home=tmp_path / name, dagster_home=tmp_path))
    assert (tmp_path / name).is_dir()


def chained(inner: Exception) -> Exception:
    try:
        try:
            raise inner
        except Exception as error:
            raise RuntimeError("a step failed") from error
    except RuntimeError as outer:
        return outer


def test_a_full_disk_is_recognized_in_the_words_of_everyone(tmp_path: Path) -> None:
    full: list[Exception] = [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        ValueError("Generic LocalFileSystem error: Unable to copy data to file: No space left on device (os error 28)"),
        sqlite3.OperationalError("database or disk is full"),
    ]
    for failure in full:
        for error in (failure, chained(failure)):
            assert f"{tmp_path}: expected room on its disk, found none left" in str(disk_full(error, tmp_path))
    assert disk_full(ValueError("another"), tmp_path) is None
    assert "check the disk" in str(disk_full(sqlite3.OperationalError("unable to open database file"), tmp_path))
