"""Splits: the digest of a host's name decides, and nothing else."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from schemas.kernels import KERNEL_FAMILIES, KERNELS
from schemas.splits import CHECK_BUCKET, fold_of, host_digest, is_published_on, split_bucket, split_of


@given(st.text())
def test_a_fold_is_two_buckets_of_the_digest(host: str) -> None:
    host = host.encode("utf-8", "ignore").decode()
    digest = hashlib.sha256(host.encode()).hexdigest()
    assert split_bucket(host) == int(digest, 16) % 10
    assert fold_of(host) == split_bucket(host) // 2
    assert split_of(host) == split_of(host, "digits", "names") == f"fold_{fold_of(host)}"
    assert split_of(host, "names", "names") == "held_out"
    assert is_published_on(host) is (split_bucket(host) != CHECK_BUCKET)
    assert host_digest(host) == digest


def test_every_kernel_has_a_family() -> None:
    assert len(KERNEL_FAMILIES) == len(KERNELS)
