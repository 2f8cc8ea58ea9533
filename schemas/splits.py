"""Which host is for training, validation or test: by host, never by row, so that a later host never moves an earlier one.

One data set is kept out whole, whatever the buckets of its hosts.
"""

import hashlib
from typing import Final, Literal

Split = Literal["train", "validation", "test"]

BUCKETS: Final = 10
HELD_OUT_DATA_SET: Final = "names"  # none of its hosts is trained on: the harder split
_SPLIT_OF_BUCKET: Final[tuple[Split, ...]] = ("train",) * 7 + ("validation",) + ("test",) * 2


def bucket(host_blueprint_id: str) -> int:
    """Bucket 0..9 of a host: SHA-256 of its UTF-8 blueprint id as a big-endian integer, modulo 10."""
    digest = hashlib.sha256(host_blueprint_id.encode("utf-8")).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def split_of(host_blueprint_id: str) -> Split:
    """Split of a host: buckets 0-6 train, 7 validation, 8-9 test."""
    return _SPLIT_OF_BUCKET[bucket(host_blueprint_id)]


def data_set_of(experiment_name: str | None) -> str | None:
    """The data set of an experiment, which is named `<data set>/<architecture>`; None where it has no name."""
    return experiment_name.partition("/")[0] or None if experiment_name else None
