"""Assign hosts to folds: by host, never by row, so that a later host never moves an earlier one.

Hosts fall into ten buckets, two to a fold. Figures come from networks that never saw the host's fold; the published weights are
trained on all buckets but one. One data set is kept out whole, whatever the buckets of its hosts.
"""

import hashlib
from typing import Final

BUCKETS: Final = 10
FOLDS: Final = 5
CHECK_BUCKET: Final = 7  # the published weights never see its hosts
HELD_OUT_DATA_SET: Final = "names"  # none of its hosts is trained on: the harder split
HELD_OUT: Final = "held_out"
FOLD_NAMES: Final[tuple[str, ...]] = tuple(f"fold_{number}" for number in range(FOLDS))
SPLITS: Final[tuple[str, ...]] = (*FOLD_NAMES, HELD_OUT)


def split_bucket(host_blueprint_id: str) -> int:
    """Return the bucket 0..9 of a host: SHA-256 of its UTF-8 blueprint id as a big-endian integer, modulo 10."""
    digest = hashlib.sha256(host_blueprint_id.encode("utf-8")).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def fold_of(host_blueprint_id: str) -> int:
    """Return the fold 0..4 of a host: its bucket // 2."""
    return split_bucket(host_blueprint_id) // 2


def split_of(host_blueprint_id: str, data_set: str | None = None, held_out: str | None = None) -> str:
    """Return the split of a host: `fold_0`..`fold_4`, or `held_out` if its data set is kept out."""
    return HELD_OUT if held_out is not None and data_set == held_out else FOLD_NAMES[fold_of(host_blueprint_id)]


def is_published_on(host_blueprint_id: str) -> bool:
    """Return whether the host's bucket allows training of the published weights on it; the data set is not considered."""
    return split_bucket(host_blueprint_id) != CHECK_BUCKET


def host_digest(host_blueprint_id: str) -> str:
    """Return the SHA-256 (hex) of a host's UTF-8 blueprint id: how a manifest names the hosts that a bundle was trained on."""
    return hashlib.sha256(host_blueprint_id.encode("utf-8")).hexdigest()


def data_set_of(experiment_name: str | None) -> str | None:
    """Return the data set of an experiment named `<data set>/<architecture>`; None if it has no name."""
    return experiment_name.partition("/")[0] or None if experiment_name else None
