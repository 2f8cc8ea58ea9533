"""Assign training runs to buckets by a digest of their id."""

import hashlib
from typing import Final

BUCKETS: Final = 16
BUCKET_COLUMN: Final = "run_bucket"
# SQL schemas whose derived tables are laid out in one folder per bucket; so are all contract tables of training runs
BUCKETED: Final = frozenset({"features", "coverage"})


def bucket_of(training_run_id: str, buckets: int = BUCKETS) -> int:
    """Return the bucket of a run: the first 8 bytes of SHA-256 of its id, big-endian, modulo the number of buckets."""
    return int.from_bytes(hashlib.sha256(training_run_id.encode("utf-8", "surrogatepass")).digest()[:8], "big") % buckets
