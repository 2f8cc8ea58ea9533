"""Compute the code version: a digest of what the sources of `schemas` and `gnn` do, without docstrings and comments."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import gnn
import schemas

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def code_version() -> str:
    """Return the SHA-256 (hex) over the path and syntax tree of every Python source in `schemas` and `gnn`, sorted by path.

    Comments, docstrings and layout are not part of a syntax tree, so rewording them changes no build id.
    """
    digest = hashlib.sha256()
    for name, path in _sources():
        digest.update(f"{name}\0{source_digest(path.read_bytes())}\n".encode())
    return digest.hexdigest()


def source_digest(source: bytes) -> str:
    """Return the SHA-256 (hex) of the syntax tree of one Python source, without its docstrings.

    Raises SyntaxError if `source` is not Python.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _sources() -> Iterator[tuple[str, Path]]:
    for package in (gnn, schemas):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            yield f"{package.__name__}/{path.relative_to(root).as_posix()}", path
