"""Which host is for training, validation or test: by host, never by row, so that a later host never moves an earlier one."""

import hashlib
from typing import Final, Literal

Split = Literal["train", "validation", "test"]

BUCKETS: Final = 10
_SPLIT_OF_BUCKET: Final[tuple[Split, ...]] = ("train",) * 7 + ("validation",) + ("test",) * 2


def bucket(host_blueprint_id: str) -> int:
    """Bucket 0..9 of a host: SHA-256 of its UTF-8 blueprint id as a big-endian integer, modulo 10."""
    digest = hashlib.sha256(host_blueprint_id.encode("utf-8")).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def split_of(host_blueprint_id: str) -> Split:
    """Split of a host: buckets 0-6 train, 7 validation, 8-9 test."""
    return _SPLIT_OF_BUCKET[bucket(host_blueprint_id)]
