"""What every command prints through a pipe is whole, without a control character, and may be left by its reader."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from gnn.coverage.counts import BY_KEY
from gnn.registry.refresh import refresh
from lake.alert_outbox import AlertOutbox
from lake.alerts.book import Problem
from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.store.table_store import TableStore
from tamiyo.terminal import shown

EVIL = "\x1b[31mred\x1b]0;title\x07\x9b2J\x08\r\n\x7f\u2028[/red] :smile: " + "x" * 300
SHOWN = r"\x1b[31mred\x1b]0;title\x07\x9b2J\x08\r\n\x7f\u2028[/red] :smile: " + "x" * 300
NAME = EVIL.partition("[/")[0]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]")


def piped(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    """A command whose stdout and stderr are pipes, told by its environment to be narrow."""
    command = [sys.executable, "-W", "ignore", "-m", "tamiyo", *map(str, arguments)]
    narrow = os.environ | {"COLUMNS": "40", "FORCE_COLOR": ""} | env
    done = subprocess.run(command, capture_output=True, check=False, timeout=120, env=narrow)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose tables, alerts and registries hold an id that is long and evil."""
    root = tmp_path_factory.mktemp("terminal")
    folder = root / "exports" / "kasmina" / "seed_state"
    folder.mkdir(parents=True)
    (folder / f"{NAME}.ndjson").write_text("not json\n")
    tables = TableStore(root)
    Ingest(root, Exports(root / "exports"), tables).refresh()
    row = {name.name: None for name in BY_KEY} | {"training_run_id": EVIL, "key": EVIL, "family": "f", "system": EVIL}
    row |= {"mandatory": True, "measured": 1, "elements": 2}
    # written past the store, which refuses a key that is not declared
    write_deltalake(tables.path("coverage.by_key"), pa.Table.from_pylist([row], BY_KEY))
    AlertOutbox(root, None).report("a/b", "check", [Problem("problem", f"run {EVIL}")])
    refresh(root / "registries", {"seed": {EVIL}})
    (root / "builds").mkdir(exist_ok=True)
    return root


COMMANDS = {
    "coverage": ["coverage"],
    "coverage of a run": ["coverage", "--run", EVIL],
    "alerts": ["alerts", "list"],
    "registry show": ["registry", "show", "seed"],
    "registry diff": ["registry", "diff", "seed", "0", "1"],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_ids_are_whole_and_escaped(arguments: list[str], home: Path) -> None:
    done = piped(*arguments, "--home", home)
    assert (done.returncode, done.stderr) == (0, "")
    assert SHOWN in done.stdout
    assert not CONTROL.search(done.stdout)


def test_rejects_are_whole_lines(home: Path) -> None:
    counts, listed = piped("rejects", "--home", home), piped("rejects", "--table", "rejects.kasmina_seed_state", "--home", home)
    assert counts.stdout.splitlines()[1].split() == ["rejects.kasmina_seed_state", "invalid_json", "1"]
    (line,) = listed.stdout.splitlines()
    assert shown(f"kasmina/seed_state/{NAME}.ndjson") in line and "invalid_json" in line
    assert not CONTROL.search(listed.stdout)


def test_each_registry_is_one_line(home: Path) -> None:
    lines = piped("registry", "list", "--home", home).stdout.splitlines()
    assert lines[0].split() == ["registry", "version", "size", "capacity", "used", "retired"]
    assert all(len(line.split()) == 6 for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        ["lineage", EVIL],
        ["preflight", NAME],
        ["coverage", "--run", f"{EVIL}y"],
        ["registry", "retire", "seed", f"{EVIL}y"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_messages_about_ids_are_one_line(arguments: list[str], home: Path) -> None:
    done = piped(*arguments, "--home", home)
    said = done.stdout + done.stderr
    assert (done.returncode, said.count("\n")) == (1, 1)
    assert not CONTROL.search(said)


def test_colours_may_be_forced_in_a_pipe_and_nothing_is_cut(home: Path) -> None:
    done = piped("coverage", "--home", home, FORCE_COLOR="1", TTY_COMPATIBLE="1")
    assert SHOWN in done.stdout


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["table", "json"])
def test_a_reader_that_leaves_early_ends_the_output_and_nothing_else(as_json: list[str], home: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tamiyo", "registry", "show", "optimizer_family", *as_json]
    process = subprocess.Popen([*command, "--home", home], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 0


def test_what_an_encoding_lacks_is_escaped(tmp_path: Path) -> None:
    refresh(tmp_path / "registries", {"layer_type": {"größe 層"}})
    done = piped("registry", "show", "layer_type", "--home", tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"gr\xf6\xdfe \u5c64" in done.stdout


def test_what_is_printable_stays_as_it_is() -> None:
    assert shown("[/red] größe 層 …") == "[/red] größe 層 …"
    assert shown("a\tb\udcff\u202e") == r"a\tb\udcff\u202e"


def test_nothing_prints_around_the_terminal(repository: Path) -> None:
    around = re.compile(r"rich\.console|rich\.table|typer\.echo|(?<![.\w])print\(")
    allowed = {"terminal.py", "__main__.py"}
    found = [
        path.relative_to(repository / "tamiyo").as_posix()
        for path in (repository / "tamiyo").rglob("*.py")
        if around.search(path.read_text())
    ]
    assert set(found) == allowed
