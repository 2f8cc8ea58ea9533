"""What a bundle was made from, and the id that follows from it: content alone, so the same on every machine."""

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

import gnn
import schemas

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class BuildInputs(BaseModel):
    """Data versions (content digests) of tables, registries and norms, the code version and the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tables: Mapping[str, str]
    registries: Mapping[str, str]
    norms: str
    code: str
    configuration: Mapping[str, Any]

    @property
    def build_id(self) -> str:
        """SHA-256 (hex) of the canonical JSON of these inputs: keys sorted, no spaces, ASCII."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()


@cache
def code_version() -> str:
    """SHA-256 (hex) over path and syntax tree of every Python source in `schemas` and `gnn`, in order of path.

    Comments, docstrings and layout are not part of a syntax tree, so rewording them changes no build id.
    """
    digest = hashlib.sha256()
    for name, path in _sources():
        digest.update(f"{name}\0{source_digest(path.read_bytes())}\n".encode())
    return digest.hexdigest()


def source_digest(source: bytes) -> str:
    """SHA-256 (hex) of the syntax tree of one Python source, without its docstrings.

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
