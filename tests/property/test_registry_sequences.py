"""Any sequence of refreshes, retirements and Simic snapshots keeps indices stable, unique and as the rules say."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.registry.refresh import load, refresh, retire
from gnn.registry.rules import next_entries
from schemas.artifacts import REGISTRIES, RegistrySpec, registry_digest

SMALL = RegistrySpec("small", 12, ("linear", "cosine"), lower_case=True)
KEYS = st.text(alphabet="abcABCé😀", min_size=0, max_size=2)
SIMIC = st.lists(st.tuples(KEYS, st.integers(-1, 13)), max_size=4)
STEPS = st.lists(st.tuples(st.sets(KEYS, max_size=4), SIMIC), min_size=1, max_size=8)


def oracle(spec: RegistrySpec, old: dict[str, int] | None, simic: list[tuple[str, int]], observed: set[str]) -> dict[str, int]:
    """The rules of artifacts.md, one sentence after the other."""
    result = dict(old) if old is not None else {key: i for i, key in enumerate(spec.seeded, start=1)}
    last_good = dict(result)
    adopted: dict[str, int] = {}
    for key, index in ((k.lower(), i) for k, i in simic):
        owners = [k for k, i in (result | adopted).items() if i == index]
        if not key or not 1 <= index <= spec.capacity - 2:
            return last_good
        if (result | adopted).get(key, index) != index or owners not in ([], [key]):
            return last_good
        adopted[key] = index
    result |= adopted
    for key in sorted({k.lower() for k in observed if k} - set(result)):
        free = [i for i in range(1, spec.capacity - 1) if i not in result.values()]
        if not free:
            return last_good
        result[key] = free[0]
    return result


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_the_rules_are_those_of_the_design(steps: list[tuple[set[str], list[tuple[str, int]]]]) -> None:
    entries: dict[str, int] | None = None
    for observed, simic in steps:
        expected = oracle(SMALL, entries, simic, observed)
        outcome = next_entries(SMALL, entries, simic, observed)
        assert outcome.entries == expected
        assert entries is None or entries.items() <= outcome.entries.items()
        assert len(set(outcome.entries.values())) == len(outcome.entries)
        entries = outcome.entries


def snapshot(pairs: list[tuple[str, int]]) -> pa.Table:
    schema = pa.schema([("registry", pa.string()), ("key", pa.string()), ("index", pa.int64()), ("arrival", pa.int64())])
    rows = [{"registry": "schedule", "key": k, "index": i, "arrival": 1} for k, i in dict(pairs).items()]
    return pa.Table.from_pylist(rows, schema)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sets(KEYS, max_size=3), SIMIC, st.booleans()), min_size=1, max_size=6))
def test_published_files_agree_with_all_past_versions(steps: list[tuple[set[str], list[tuple[str, int]], bool]]) -> None:
    with TemporaryDirectory() as folder:
        home = Path(folder, "registries")
        past: list[dict[str, int]] = []
        for observed, pairs, retiring in steps:
            report = refresh(home, {"schedule": observed}, snapshot(pairs))["schedule"]
            current = load(home)["schedule"]
            if retiring:
                retire(home, "schedule", "linear")
            assert all(old.items() <= current.entries.items() for old in past)
            assert current.digest == registry_digest(current.entries) == report.digest
            assert set(current.retired) <= set(current.entries)
            if not past or past[-1] != dict(current.entries):
                past.append(dict(current.entries))
            assert current.version == len(past)
        kept = sorted((home / "versions" / "schedule").iterdir(), key=lambda p: int(p.stem))
        assert [json.loads(p.read_text()) for p in kept] == past
        record = json.loads((home / "index.json").read_text())["schedule"]
        grown: dict[str, int] = {}
        for version, entries in zip(record["versions"], past, strict=True):
            grown |= version["added"]
            assert grown == entries
            assert version["digest"] == registry_digest(entries)
        used = set(past[-1].values())
        assert record["holes"] == [i for i in range(1, max(used)) if i not in used]
        assert set(load(home)) == set(REGISTRIES)
