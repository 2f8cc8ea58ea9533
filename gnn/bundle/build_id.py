"""Compute a bundle's build id from its inputs: it depends on content alone, so it is the same on every machine."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


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
        """The SHA-256 (hex) of the canonical JSON of these inputs: keys sorted, no spaces, ASCII."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()
