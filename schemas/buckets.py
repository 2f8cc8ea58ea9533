"""Assign training runs to buckets by a digest of their id."""

import hashlib
from typing import Final

BUCKETS: Final = 16
BUCKET_COLUMN: Final = "run_bucket"
BUCKETED: Final = frozenset({"features", "coverage"})  # schemas whose tables are laid out by it, a folder a bucket


def bucket_of(training_run_id: str, buckets: int = BUCKETS) -> int:
    """Bucket of a run: the first 8 bytes of SHA-256 of its id, big-endian, modulo the number of buckets."""
    return int.from_bytes(hashlib.sha256(training_run_id.encode("utf-8", "surrogatepass")).digest()[:8], "big") % buckets
