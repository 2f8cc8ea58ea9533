"""The programs of `docs/tutorial.md` run as they stand: a model is watched, its exports are whole, a policy decides on them."""

import re
import runpy
from pathlib import Path

import pytest

from schemas.contracts import FOLDERS
from schemas.decode import decode_file
from tests.gnn.bundle.conftest import Home, home, published, trained  # noqa: F401 - fixtures


def programs(repository: Path) -> tuple[str, str]:
    """(train.py, ask.py)."""
    train, ask = re.findall(r"```python\n(.*?)```", (repository / "docs" / "tutorial.md").read_text(), flags=re.DOTALL)
    return train, ask


def run(program: str, *arguments: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(name).write_text(program)
    monkeypatch.setattr("sys.argv", [name, *arguments])
    runpy.run_path(name, run_name="__main__")


def mended(repository: Path) -> str:
    """train.py after the change that the tutorial asks for."""
    text = (repository / "docs" / "tutorial.md").read_text()
    ((before, after),) = re.findall(r"change\n\n```\n(.*?)\n```\n\nto\n\n```\n(.*?)\n```", text, re.DOTALL)
    train, _ = programs(repository)
    assert train.count(before) == 1
    return train.replace(before, after)


def test_a_watched_model_leaves_whole_exports_and_the_policy_decides_on_each_packet(
    repository: Path,
    home: Home,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run(mended(repository), "digits-1", "var/exports", name="train.py", monkeypatch=monkeypatch)
    assert capsys.readouterr().out.startswith("20 packets of digits-1, loss 2.")
    rows: dict[str, int] = {}
    for path in sorted(Path("var/exports").rglob("*.*")):
        folder = FOLDERS["/".join(path.parts[2:4])]
        for part in decode_file(path, folder, file=path.name, digest=""):
            assert part.rejects == {}
            for name, table in part.tables.items():
                rows[name] = rows.get(name, 0) + table.num_rows
                if name == "kasmina.seed_state":
                    assert table["alpha"].to_pylist() == [0.0] * table.num_rows
    assert (rows["tolaria.system_state"], rows["kasmina.seed_state"], rows["urza.blueprint"], rows["urabrask.bsds"]) == (
        20,
        20,
        1,
        1,
    )
    (home.path / "current").symlink_to(f"bundles/{home.inputs().build_id}")
    Path("var/tamiyo").symlink_to(home.path)
    run(programs(repository)[1], "digits-1", name="ask.py", monkeypatch=monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"step {step:4}" for step in range(10, 201, 10)]


def test_the_first_program_sends_no_alpha_as_the_tutorial_says(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(programs(repository)[0], "digits-1", "var/exports", name="train.py", monkeypatch=monkeypatch)
    path = Path("var/exports/tolaria/system_state/digits-1.ndjson")
    (part,) = decode_file(path, FOLDERS["tolaria/system_state"], file=path.name, digest="")
    assert part.tables["kasmina.seed_state"]["alpha"].null_count == 20
