"""The words: spelling, and phrases that we do not use."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import wording


def test_no_file_holds_a_phrase_of_the_list(repository: Path) -> None:
    assert wording.faults(repository) == []


@pytest.mark.parametrize(
    "line",
    ["None where there is no row.", "Raises StorageError where damaged.", "where none does", "in 1 runs (a)", "left away"],
)
def test_a_phrase_of_the_list_is_found(line: str) -> None:
    assert [number for number, _, _ in wording.found(f"\n{line}\n")] == [2]


def test_ordinary_words_are_not_found() -> None:
    assert list(wording.found("None if there is none. See where it is kept. 11 runs.")) == []


def test_the_spelling_is_right_and_a_wrong_one_is_found(repository: Path, tmp_path: Path) -> None:
    def check(*paths: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "codespell_lib", *map(str, paths)]
        return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)

    done = check()
    assert (done.returncode, done.stdout) == (0, "")
    (tmp_path / "page.md").write_text("recie" + "ve\n")
    assert check(tmp_path).returncode != 0
