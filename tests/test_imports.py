"""The arrows of the house: schemas <- gnn <- tamiyo_assets, schemas <- recorder; nobody imports tamiyo_assets."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ALLOWED = {
    "schemas": {"schemas"},
    "gnn": {"schemas", "gnn"},
    "recorder": {"schemas", "recorder"},
    "tamiyo_assets": {"schemas", "gnn", "tamiyo_assets"},
}
# `tamiyo record` hands its arguments to the recorder
EXTRA = {"tamiyo_assets/commands/record.py": {"recorder"}}
FOREIGN = {"schemas": {"dagster", "torch", "torch_geometric"}, "gnn": {"dagster"}, "recorder": {"dagster"}}


def imported(path: Path) -> set[str]:
    """First names of everything that a module imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_follow_the_arrows(package: str, repository: Path) -> None:
    wrong = {}
    for path in sorted((repository / package).rglob("*.py")):
        name = path.relative_to(repository).as_posix()
        ours = imported(path) & set(ALLOWED)
        foreign = imported(path) & FOREIGN.get(package, set())
        bad = (ours - ALLOWED[package] - EXTRA.get(name, set())) | foreign
        if bad:
            wrong[name] = bad
    assert wrong == {}


@pytest.mark.parametrize("module", ["tamiyo_assets.definitions", "tamiyo_assets.cli", "schemas.contracts"])
def test_heavy_libraries_are_not_imported_before_they_are_needed(module: str, repository: Path) -> None:
    """Loading the code location is a small multiple of `import dagster`; `benchmarks/load.py` measures it."""
    late = (
        "deltalake", "duckdb", "matplotlib", "networkx", "pandas", "pandera", "polars", "pyarrow.dataset", "scipy", "sklearn",
        "torch", "torch_geometric",
    )  # fmt: skip
    code = f"import sys, {module}; sys.exit(', '.join(m for m in {late} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=repository, capture_output=True, text=True)
    assert (done.returncode, done.stderr[-2000:]) == (0, "")


def test_files_and_functions_stay_small(repository: Path) -> None:
    """A file past 400 lines or a function past 50 is two ideas in one room."""
    wrong = []
    for package in ALLOWED:
        for path in (repository / package).rglob("*.py"):
            if "_pb2" in path.name:
                continue
            text = path.read_text()
            wrong += [f"{path}: {text.count(chr(10))} lines"] * (text.count("\n") > 400)
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno > 50:
                    wrong.append(f"{path}:{node.lineno} {node.name}")
    assert wrong == []
