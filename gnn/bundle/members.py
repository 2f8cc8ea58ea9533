"""Name the members of a bundle and bound their sizes; its directory may hold nothing else."""

from typing import Final

from schemas.artifacts import REGISTRIES
from schemas.configuration import MODEL_NAME

_MIB: Final = 1 << 20

WEIGHTS: Final = f"{MODEL_NAME}.safetensors"
CHECKPOINT: Final = f"{MODEL_NAME}.pt"
MANIFEST: Final = "manifest.json"
MANIFEST_DIGEST: Final = "manifest.sha256"
NORMS: Final = "gnn_norms.json"
GOLDEN: Final = "golden.safetensors"
REGISTRY_DIR: Final = "registries"
REGISTRY_INDEX: Final = f"{REGISTRY_DIR}/index.json"
REGISTRY_FILES: Final[tuple[str, ...]] = tuple(f"{REGISTRY_DIR}/{spec.file}" for spec in REGISTRIES.values())

LISTED: Final[tuple[str, ...]] = (CHECKPOINT, WEIGHTS, NORMS, GOLDEN, REGISTRY_INDEX, *REGISTRY_FILES)
ALL: Final[tuple[str, ...]] = (MANIFEST, MANIFEST_DIGEST, *LISTED)

_BOUNDS: Final[dict[str, int]] = {
    CHECKPOINT: 1024 * _MIB,
    WEIGHTS: 1024 * _MIB,
    GOLDEN: 16 * _MIB,  # two small graphs, which preflight answers
    MANIFEST: 8 * _MIB,
    MANIFEST_DIGEST: 256,
    NORMS: _MIB,
    REGISTRY_INDEX: 64 * _MIB,
}


def size_bound(name: str) -> int:
    """Return the largest size that member may have, in bytes."""
    return _BOUNDS.get(name, 4 * _MIB)


def digest_line(digest: str) -> bytes:
    """Return the only valid content of `manifest.sha256` for `digest`, as `sha256sum` writes it."""
    return f"{digest}  {MANIFEST}\n".encode("ascii")
