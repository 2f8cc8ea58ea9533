"""What a newcomer does wrong: a typo, a home of another user, a pipe that closes early. Each ends in one sentence."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gnn.registry.refresh import refresh
from tests.tamiyo.test_cli import tamiyo

NOBODY = 65534
WITHOUT_PRIVILEGES = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [(["rgistry"], "registry"), (["registry", "lst"], "list"), (["run", "--exprots", "x"], "--exports")],
)
def test_a_typo_is_status_2_and_names_what_was_meant(arguments: list[str], meant: str) -> None:
    found = tamiyo(*arguments)
    assert found.exit_code == 2
    assert meant in found.output


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A home with a registry, in which only another user may write."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv to take that from it")
    home = tmp_path / "home"
    refresh(home / "registries", {"seed": {"seed-1"}})
    for path in (home, *home.rglob("*")):
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        elif path.is_dir() and not path.is_symlink():
            path.chmod(0o555)
    return home


def as_another_user(*arguments: str) -> subprocess.CompletedProcess[str]:
    before = WITHOUT_PRIVILEGES if os.geteuid() == 0 else ()
    command = [*before, sys.executable, "-m", "tamiyo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_home_of_another_user_is_read_and_never_written(foreign: Path) -> None:
    read = as_another_user("registry", "list", "--home", str(foreign))
    assert (read.returncode, read.stderr) == (0, "")
    for arguments in (["registry", "retire", "seed", "seed-1"], ["panel"], ["run", "--exports", str(foreign)]):
        refused = as_another_user(*arguments, "--home", str(foreign))
        assert refused.returncode == 1
        assert "Permission denied" in refused.stderr and "--home" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_a_reader_that_leaves_early_ends_the_output_without_a_traceback(tmp_path: Path) -> None:
    refresh(tmp_path / "registries", {"seed": {f"seed-{number}" for number in range(4000)}})
    command = [sys.executable, "-m", "tamiyo", "registry", "show", "seed", "--home", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")
