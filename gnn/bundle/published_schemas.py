"""Write the JSON Schemas of everything that the offline trainer reads, from the models that write it.

`python -m gnn.bundle.published_schemas` writes them to `docs/simic/schemas/`; a test checks that they are current.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from schemas.artifacts import FlatRegistry, NormsFile, RegistryIndex

DIRECTORY = Path(__file__).resolve().parents[2] / "docs" / "simic" / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def published_models() -> dict[str, type[BaseModel]]:
    """Return the published formats by the name of their schema file."""
    from gnn.bundle.manifest import Manifest

    return {
        "flat_registry": FlatRegistry,
        "registry_index": RegistryIndex,
        "gnn_norms": NormsFile,
        "manifest": Manifest,
    }


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of a published format as it is written."""
    return {"$schema": DIALECT, **model.model_json_schema(by_alias=True, mode="serialization")}


def schema_files() -> dict[str, bytes]:
    """Return the content of every published schema, by file name."""
    return {
        f"{name}.schema.json": (json.dumps(json_schema(model), indent=2, sort_keys=True) + "\n").encode("utf-8")
        for name, model in published_models().items()
    }


def write(directory: Path = DIRECTORY) -> list[Path]:
    """Write the schema files to `directory` and return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in schema_files().items():
        path = directory / name
        path.write_bytes(content)
        paths.append(path)
    return paths


if __name__ == "__main__":
    write()
