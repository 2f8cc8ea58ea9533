"""Caches of one snapshot's registries: made once, never shared with what callers write into, and bounded."""

import numpy as np

from gnn.encode.build import build_features, encode_all
from gnn.encode.encoding import Vocabularies
from schemas.features import GROUPS, Kind
from tests.gnn.tables import registries, small_world

BLENDING = next(f for g in GROUPS for f in g.features if f.name == "allowed_blending_methods")


class Counted:
    """A registry that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, keys: object) -> np.ndarray:
        self.calls += 1
        return np.array([0 if key is None else 7 for key in keys], dtype=np.int64)


def test_words_that_recur_are_looked_up_once_and_the_cache_is_bounded() -> None:
    registry = Counted()
    found = Vocabularies({BLENDING.registry or BLENDING.name: registry})
    assert found.ids(BLENDING, ("a", "b")).tolist() == [7, 7, 0]
    found.ids(BLENDING, ("a", "b"))
    assert registry.calls == 1
    for number in range(2000):
        assert found.ids(BLENDING, (str(number),)).tolist() == [7, 0]
    assert len(found._found) <= Vocabularies._KEPT


def test_what_depends_on_a_host_alone_is_encoded_once_for_its_group() -> None:
    features = build_features(small_world(1), registries=registries())
    encoded, made = features.nodes["layer"].encoded, []

    def make() -> object:
        made.append(1)
        return encoded

    found, group, other = Vocabularies({}), object(), object()
    first, second = found.of_host(group, make), found.of_host(group, make)
    assert len(made) == 1
    assert np.array_equal(first.x, encoded.x)
    assert not any(np.shares_memory(first.ids, kept.ids) for kept in (second, encoded))
    found.of_host(other, make)
    assert len(made) == 2
    for _ in range(2000):
        found.of_host(object(), make)
    assert len(found._of_hosts) <= Vocabularies._KEPT


def test_a_second_encoding_with_the_same_vocabularies_is_equal() -> None:
    joined = build_features(small_world(2), registries=registries()).joined
    vocabularies = Vocabularies(registries())
    first, second = encode_all(joined, vocabularies), encode_all(joined, vocabularies)
    for one, two in zip(first.groups, second.groups, strict=True):
        assert np.array_equal(one.encoded.x, two.encoded.x)
        assert np.array_equal(one.encoded.ids, two.encoded.ids)
    assert any(f.kind is Kind.CATEGORICAL for g in first.groups for f in g.declaration.features)
