"""`make`: another Python is refused at once and leaves nothing; a broken .venv is made anew; a taken port is told."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PIP = """#!{python}
import sys
if sys.argv[1:3] == ["-m", "venv"]:
    import pathlib, shutil
    bin = pathlib.Path(sys.argv[-1], "bin")
    if "--clear" in sys.argv: shutil.rmtree(bin.parent, ignore_errors=True)
    bin.mkdir(parents=True)
    shutil.copy(__file__, bin / "python")
elif sys.argv[1] == "-c":
    sys.version_info, pip = tuple(map(int, "{version}".split("."))), None
    import platform
    platform.python_version = lambda: "{version}"
    sys.modules["pip"] = platform
    exec(sys.argv[2])
elif sys.argv[1:3] == ["-m", "pip"]:
    with open("pip.log", "a") as log: log.write("{version}\\n")
    sys.exit(1 if __import__("os").environ.get("BROKEN_PIP") else 0)
"""


@pytest.fixture
def checkout(tmp_path: Path, repository: Path) -> Path:
    """A directory with what `make install` reads, and interpreters that only claim a version."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(repository / name, tmp_path / name)
    for name, version in {"right": "3.11.9", "wrong": "3.12.4", "old": "3.10.1"}.items():
        claim(tmp_path / name, version)
    return tmp_path


def claim(path: Path, version: str) -> None:
    """Write an interpreter that says it is `version`, makes a .venv of itself, and notes what pip is asked."""
    path.write_text(PIP.format(python=sys.executable, version=version))
    path.chmod(0o755)


def make(checkout: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    found = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")} | env
    return subprocess.run(
        ["make", *arguments], cwd=checkout, env=found, capture_output=True, text=True, check=False, timeout=60
    )


def installed(checkout: Path) -> list[str]:
    """Versions of the interpreters whose pip was called."""
    log = checkout / "pip.log"
    return log.read_text().split() if log.exists() else []


@pytest.mark.parametrize(("name", "found"), [("wrong", "3.12.4"), ("old", "3.10.1"), ("absent", "none")])
def test_another_python_is_refused_in_one_sentence_and_the_next_install_works(checkout: Path, name: str, found: str) -> None:
    refused = make(checkout, "install", f"PYTHON=./{name}")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[0] == (f"expected Python 3.11, found {found} (./{name}); set PYTHON=/path/to/python3.11")
    assert not (checkout / ".venv").exists()
    assert make(checkout, "install", "PYTHON=./right").returncode == 0
    assert installed(checkout) == ["3.11.9"] * 2
    assert make(checkout, "install").returncode == 0
    assert make(checkout, "install", f"PYTHON=./{name}").returncode == 2
    assert installed(checkout) == ["3.11.9"] * 2


def test_the_only_python3_is_another_one(checkout: Path) -> None:
    tools = checkout / "tools"
    tools.mkdir()
    for tool in ("sh", "make", "touch"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    claim(tools / "python3", "3.13.0")
    refused = make(checkout, "run", PATH=str(tools))
    assert (refused.returncode, "expected Python 3.11, found 3.13.0" in refused.stderr) == (2, True)
    assert not (checkout / ".venv").exists()
    claim(tools / "python3", "3.11.2")
    assert make(checkout, "install", PATH=str(tools)).returncode == 0


@pytest.mark.parametrize("broken", ["wrong", "no pip", "dangling"])
def test_a_broken_venv_is_made_anew(checkout: Path, broken: str) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    if broken == "wrong":
        claim(python, "3.12.4")
    elif broken == "no pip":
        python.write_text("#!/bin/sh\nexit 1\n")
        python.chmod(0o755)
    else:
        python.symlink_to("/no/such/python3.11")
    (checkout / ".venv" / "left").touch()
    assert make(checkout, "install", "PYTHON=./right").returncode == 0
    assert installed(checkout) == ["3.11.9"] * 2
    assert not (checkout / ".venv" / "left").exists()


def test_an_install_that_pip_did_not_finish_goes_on(checkout: Path) -> None:
    assert make(checkout, "install", "PYTHON=./right", BROKEN_PIP="1").returncode == 2
    (checkout / ".venv" / "kept").touch()
    assert make(checkout, "install", "PYTHON=./right").returncode == 0
    assert installed(checkout) == ["3.11.9"] * 3
    assert (checkout / ".venv" / "kept").exists()


def test_a_taken_port_is_told_before_anything_starts(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (checkout / ".venv" / ".installed").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = make(checkout, "ui", f"PORT={port}", DAGSTER_HOME=str(checkout / "dagster"))
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[0] == f"port {port} is in use: stop what listens on it, or choose another with PORT=3001"
    assert refused.stdout == ""
    assert not (checkout / "dagster").exists()
