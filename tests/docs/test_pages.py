"""The pages: the site builds without a broken link, what is generated is current, what is quoted is what it quotes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import table
from tamiyo.reference import PAGES, VARIABLES
from tests.docs.architecture_picture import PICTURE, picture

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def pages(repository: Path) -> list[Path]:
    return sorted([*(repository / "docs").rglob("*.md"), *repository.glob("*.md")])


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)


def test_the_site_builds_and_every_link_and_anchor_leads_somewhere(repository: Path, tmp_path: Path) -> None:
    config = (repository / "zensical.toml").read_text()
    shutil.copytree(repository / "docs", tmp_path / "docs", symlinks=True)
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(repository / name, tmp_path)
    (tmp_path / "zensical.toml").write_text(config)
    code = "import sys; from zensical.main import cli; sys.argv = ['zensical', 'build', '--strict']; cli()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site = {path.relative_to(tmp_path / "build" / "docs").as_posix() for path in (tmp_path / "build" / "docs").rglob("*.html")}
    named = set(re.findall(r'"([^"]+)\.md"', config))
    assert {f"{name}.html" for name in named} <= site
    in_docs = {path.relative_to(repository / "docs").with_suffix("").as_posix() for path in (repository / "docs").rglob("*.md")}
    assert named == in_docs, "every page is in the navigation of zensical.toml, and every entry is a page"


def test_files_and_pictures_that_pages_link_to_exist(repository: Path) -> None:
    """What the generator does not check: pictures, files that are no pages, the README."""
    broken = []
    for path in pages(repository):
        for target in LINK.findall(prose(path.read_text(encoding="utf-8"))):
            name = target.partition("#")[0]
            if name and not re.match(r"[a-z]+:", name) and not (path.resolve().parent / name).exists():
                broken.append(f"{path.relative_to(repository)}: {target}")
    assert broken == []


def test_pages_of_the_site_link_to_nothing_outside_it(repository: Path) -> None:
    docs, outside = repository / "docs", []
    for path in docs.rglob("*.md"):
        for target in LINK.findall(prose(path.read_text(encoding="utf-8"))):
            if not re.match(r"[a-z]+:|#", target) and not Path(os.path.normpath(path.parent / target)).is_relative_to(docs):
                outside.append(f"{path.relative_to(docs)}: {target}")
    assert outside == []


@pytest.mark.parametrize("name", PAGES)
def test_references_of_commands_and_settings_are_current(name: str, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    assert (repository / "docs" / "reference" / name).read_text() == PAGES[name](), "run `python -m tamiyo.reference`"


def test_every_environment_variable_that_the_code_reads_is_documented(repository: Path) -> None:
    documented = {part.partition("<")[0] for name, _, _ in VARIABLES for part in name.split(", ")}
    read = set()
    for package in ("schemas", "lake", "gnn", "recorder", "tamiyo_assets", "tamiyo"):
        for path in (repository / package).rglob("*.py"):
            read |= set(re.findall(r'"((?:TAMIYO|ESPER)_[A-Z_]+|DAGSTER_HOME)"', path.read_text()))
    assert read - documented == set()


def test_the_picture_of_the_packages_shows_their_imports(repository: Path) -> None:
    assert (repository / PICTURE).read_text() == picture(repository), "run `python -m tests.docs.architecture_picture`"


def test_the_benchmark_page_says_what_was_measured(repository: Path) -> None:
    results = json.loads(table.RESULTS.read_text())
    assert table.PAGE.read_text() == table.page(results), "run `python -m benchmarks.table --page`"


def test_the_readme_is_one_screen_and_quotes_the_summary(repository: Path) -> None:
    readme = (repository / "README.md").read_text()
    assert readme.count("\n") <= 60
    quoted = re.search(r"<!-- six lines[^>]*-->\n```\n(.*?)```", readme, re.DOTALL)
    assert quoted is not None
    lines = quoted[1].splitlines()
    summary = (repository / "docs" / "run.md").read_text().splitlines()
    assert len(lines) == 6
    assert [line for line in lines if line not in summary] == []


def test_make_has_every_target_that_pages_name(repository: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    for path in pages(repository):
        named = set(re.findall(r"`make ([a-z]+)", path.read_text())) | set(
            re.findall(r"^make ([a-z]+)", path.read_text(), re.MULTILINE)
        )
        assert named <= targets, path


def test_the_continuous_integration_runs_what_the_readme_names(repository: Path) -> None:
    script = (repository / ".ci" / "run").read_text()
    assert re.search(r"^make test", (repository / "README.md").read_text(), re.MULTILINE)
    assert "make test" in script.splitlines() and "make lint" in script.splitlines()
