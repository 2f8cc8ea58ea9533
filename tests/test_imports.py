"""The arrows of the house: schemas <- lake <- gnn <- tamiyo_assets <- tamiyo, recorder beside gnn."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

# package -> what it may import: whole packages, or folders of them
ALLOWED = {
    "schemas": {"schemas"},
    "lake": {"schemas", "lake"},
    "gnn": {"schemas", "lake.durable", "gnn"},
    "recorder": {"schemas", "lake.durable", "recorder"},
    "tamiyo_assets": {"schemas", "lake", "gnn", "tamiyo_assets"},
    "tamiyo": {"schemas", "lake", "gnn", "recorder", "tamiyo_assets", "tamiyo"},
}
FOREIGN = {
    "schemas": {"dagster", "torch", "torch_geometric", "deltalake"},
    "lake": {"dagster", "torch", "torch_geometric"},
    "gnn": {"dagster"},
    "recorder": {"dagster"},
}

REPORTING = "gnn/remote/__main__.py"  # the one program that a run of Dagster starts elsewhere

# package -> imports of one of its modules by another that are not counted when circles are looked for
CIRCLES: dict[str, frozenset[tuple[str, str]]] = {package: frozenset() for package in ALLOWED}


def imported(path: Path) -> set[str]:
    """Everything that a module imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def edges(repository: Path, package: str) -> set[tuple[str, str]]:
    """(module, module that it imports) inside a package; imports for type checkers alone and inside functions count too."""
    paths = {path.relative_to(repository).with_suffix(""): path for path in (repository / package).rglob("*.py")}
    modules = {".".join(name.parts).removesuffix(".__init__"): path for name, path in paths.items()}
    found = set()
    for module, path in modules.items():
        for name in imported(path):
            target = name if name in modules else name.rpartition(".")[0]
            if target in modules and target != module:
                found.add((module, target))
    return found


def circle(edges: Iterable[tuple[str, str]]) -> list[str]:
    """Names of one circle in order, the first again at the end; [] if there is none."""
    graph = defaultdict(set)
    for name, target in edges:
        graph[name].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def neighbours(edges: Iterable[tuple[str, str]]) -> dict[str, set[tuple[str, str]]]:
    """By package: the imports between what lies directly in it, modules and packages; a package's own module is not counted."""
    found = defaultdict(set)
    for module, target in edges:
        ours, theirs = module.split("."), target.split(".")
        shared = next((place for place, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        if shared:
            found[".".join(ours[:shared])].add((ours[shared], theirs[shared]))
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_follow_the_arrows(package: str, repository: Path) -> None:
    wrong = {}
    for path in sorted((repository / package).rglob("*.py")):
        modules = imported(path)
        ours = {module for module in modules if module.partition(".")[0] in ALLOWED}
        bad = {module for module in ours if not any(within(module, allowed) for allowed in ALLOWED[package])}
        bad |= {module for module in modules if module.partition(".")[0] in FOREIGN.get(package, set())}
        if bad:
            wrong[path.relative_to(repository).as_posix()] = bad
    assert wrong == {}


def test_only_the_program_that_trains_elsewhere_speaks_dagsters_pipes(repository: Path) -> None:
    below = [path for package in FOREIGN for path in (repository / package).rglob("*.py")]
    found = {path.relative_to(repository).as_posix() for path in below if any("dagster_pipes" in m for m in imported(path))}
    assert found == {REPORTING}


@pytest.mark.parametrize("package", CIRCLES)
def test_no_modules_import_each_other_in_a_circle(package: str, repository: Path) -> None:
    assert circle(edges(repository, package) - CIRCLES[package]) == []


@pytest.mark.parametrize("package", CIRCLES)
def test_no_rooms_of_a_package_import_each_other_in_a_circle(package: str, repository: Path) -> None:
    rooms = neighbours(edges(repository, package) - CIRCLES[package])
    assert {name: circle(imports) for name, imports in rooms.items() if circle(imports)} == {}


def test_a_circle_is_found_among_modules_and_among_rooms() -> None:
    assert circle({("p.a", "p.b"), ("p.b", "p.c")}) == []
    assert set(circle({("p.a", "p.b"), ("p.b", "p.a"), ("p.b", "p.c")})) == {"p.a", "p.b"}
    rooms = neighbours({("p.a.x", "p.b.y"), ("p.b.z", "p.a.w"), ("p.a.x", "p.a.w"), ("p", "p.a.x"), ("p.a.x", "p")})
    assert rooms == {"p": {("a", "b"), ("b", "a")}, "p.a": {("x", "w")}}
    assert circle(rooms["p"]) != []


@pytest.mark.parametrize("module", ["tamiyo_assets.definitions", "tamiyo.cli", "schemas.contracts"])
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
