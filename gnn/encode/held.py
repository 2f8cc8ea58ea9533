"""List the registry keys in each training run's graphs: a run is encoded again if the index of one of them changes."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import pyarrow as pa

from gnn.join.joined import Group, Joined
from gnn.join.rows import Ints, Labels, Vocabulary, expand, lengths
from schemas.features import Feature, Kind

HELD: Final = pa.schema([("training_run_id", pa.string()), ("registry", pa.string()), ("key", pa.string())])


def held_keys(joined: Joined) -> pa.Table:
    """Return one row per run, registry and key that occurs in a categorical, multi-hot or share feature of the run's graphs."""
    parts = [HELD.empty_table()]
    runs = np.array([*joined.states.runs, None], dtype=object)
    for group in joined.groups:
        for feature, run, labels in _labels(group, joined.states.run[group.packet]):
            span = len(labels.words) + 1
            keys = np.unique((run * span + labels.codes)[labels.codes >= 0])
            words = np.array([*labels.words, None], dtype=object)[keys % span]
            registry = [feature.registry or feature.name] * len(keys)
            parts.append(pa.table([runs[keys // span], registry, words], schema=HELD))
    whole = pa.concat_tables(parts)
    return whole.group_by(HELD.names, use_threads=False).aggregate([]).select(HELD.names)


def _labels(group: Group, run: Ints) -> Iterator[tuple[Feature, Ints, Labels]]:
    """Yield each feature that a registry encodes, with the run and the label of each of its values."""
    for feature in group.declaration.features:
        if feature.kind is Kind.CATEGORICAL:
            yield feature, run, group.columns.labels[feature.name]
        elif feature.kind is Kind.MULTI_HOT:
            sets = group.columns.sets[feature.name]
            lists = sets.source.lists(sets.column)
            counts = lengths(lists.ptr)[sets.rows]
            yield feature, run.repeat(counts), lists.items.take(expand(lists.ptr[:-1][sets.rows], counts))
        elif feature.kind is Kind.SHARE:
            mix = group.columns.shares[feature.name]
            yield feature, run.repeat(lengths(mix.ptr)), mix.items


def index_digests(held: pa.Table, registries: Mapping[str, Vocabulary]) -> dict[str, str]:
    """Return for each run in `held` a digest (hex) of the indices that `registries` assign to its keys."""
    if not held.num_rows:
        return {}
    pairs = held.select(["registry", "key"]).group_by(["registry", "key"], use_threads=False).aggregate([])
    registry, key = (pairs.column(name).to_pylist() for name in ("registry", "key"))
    word: dict[tuple[str, str], Ints] = {}
    for pair in zip(registry, key, strict=True):
        index = int(registries[pair[0]].encode([pair[1]])[0])
        digest = hashlib.sha256(f"{pair[0]}\0{pair[1]}\0{index}".encode()).digest()
        word[pair] = np.frombuffer(digest[:16], dtype=np.int64)
    runs = held.column("training_run_id").combine_chunks().dictionary_encode()
    sums = np.zeros((len(runs.dictionary), 2), dtype=np.int64)
    names = zip(held.column("registry").to_pylist(), held.column("key").to_pylist(), strict=True)
    np.add.at(sums, runs.indices.to_numpy(), np.stack([word[pair] for pair in names]))
    return {run: row.tobytes().hex() for run, row in zip(runs.dictionary.to_pylist(), sums, strict=True)}
