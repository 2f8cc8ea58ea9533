"""The norms file: strict, versioned, replay-safe, and read by the reader that the online service has."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnn.norms.ewma import EwmaState
from gnn.norms.published import (
    NORMS,
    Norms,
    Observation,
    from_bytes,
    from_json,
    is_older,
    load,
    newest_observations,
    publish,
    version_file,
)
from schemas.artifacts import PriorNorm
from schemas.errors import NormsError

SEEN = {"loss": Observation(EwmaState(0.5, 0.25, 7), "run-a", 1_795_412_039_464_290_259)}
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def outside_reader(path: Path) -> dict[str, tuple[float, float]]:
    """What the existing online service does."""
    with path.open() as f:
        return {k: (v["mean"], v["var"]) for k, v in json.load(f).items() if isinstance(v, dict)}


def test_the_file_is_flat_and_as_designed(tmp_path: Path) -> None:
    publish(tmp_path, Norms.of({}, SEEN))
    found = json.loads((tmp_path / NORMS).read_bytes())
    assert found["loss"] == {
        "mean": 0.5, "var": 0.25, "count": 7, "training_run_id": "run-a", "timestamp_ns": 1_795_412_039_464_290_259
    }  # fmt: skip
    assert {key: found[key] for key in ("schema", "alpha", "epsilon", "version")} == {
        "schema": 1, "alpha": 0.1, "epsilon": 1e-6, "version": 1
    }  # fmt: skip
    assert set(found["momentum"]) == {"mean", "var", "transform"}
    assert set(outside_reader(tmp_path / NORMS)) == {
        "loss", "gradient_norm", "samples_per_s", "hook_latency_ms",
        "parameter_count", "learning_rate", "momentum", "gradient_variance",
    }  # fmt: skip


def test_publishing_the_same_again_changes_nothing_and_every_version_is_kept(tmp_path: Path) -> None:
    assert publish(tmp_path, Norms.default()).version == 1
    before = (tmp_path / NORMS).stat().st_mtime_ns
    assert publish(tmp_path, Norms.default()).version == 1
    assert (tmp_path / NORMS).stat().st_mtime_ns == before
    assert publish(tmp_path, Norms.of({}, SEEN)).version == 2
    assert publish(tmp_path, Norms.default()).version == 3
    assert [from_json(version_file(tmp_path, n)).version for n in (1, 2, 3)] == [1, 2, 3]
    assert from_json(version_file(tmp_path, 1)).digest == from_json(version_file(tmp_path, 3)).digest


@given(FINITE, st.floats(min_value=0, allow_infinity=False), FINITE, st.floats(min_value=1e-300, allow_infinity=False))
def test_numbers_survive_the_file_bit_for_bit(mean: float, var: float, prior: float, spread: float) -> None:
    norms = Norms.of(
        {"momentum": PriorNorm(mean=prior, var=spread, transform="identity")},
        {"loss": Observation(EwmaState(mean, var, 1), "r", 1)},
    )
    again = json.loads(norms.to_json())
    assert (again["loss"]["mean"], again["loss"]["var"]) == (mean, var)
    assert (again["momentum"]["mean"], again["momentum"]["var"]) == (prior, spread)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_never_published(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Norms.of({}, {"loss": Observation(EwmaState(value, 0.25, 1), "r", 1)})
    assert load(tmp_path) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"mean": 0.8', b'"mean": NaN'),
        (b'"mean": 0.8', b'"mean": Infinity'),
        (b'"mean": 0.8', b'"mean": 1e999'),
        (b'"mean": 0.8', b'"mean": "0.8"'),
        (b'"mean": 0.8', b'"mean": \xff'),
        (b'"mean": 0.8, ', b""),
        (b'"var": 0.09', b'"var": -0.09'),
        (b'"alpha": 0.1', b'"alpha": 0.2'),
        (b'"schema": 1', b'"schema": 2'),
        (b'"version": 1', b'"version": 0'),
        (b'"transform": "log1p"', b'"transform": "log"'),
        (b'"loss"', b'"lost"'),
        (b"}\n", b""),
        (b'"version": 1', b'"version": 1, "version": 1'),
    ],
)
def test_damage_names_the_file(tmp_path: Path, old: bytes, new: bytes) -> None:
    publish(tmp_path, Norms.default())
    path = tmp_path / NORMS
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(NormsError, match=r"gnn_norms\.json"):
        load(tmp_path)
    with pytest.raises(NormsError, match=r"gnn_norms\.json"):
        publish(tmp_path, Norms.of({}, SEEN))


def test_an_older_systems_norms_are_kept_and_replaced_by_version_1(tmp_path: Path) -> None:
    older = b'{"loss": {"mean": 1.0, "var": 2.0}, "gradient_norm": {"mean": 0.5, "var": 0.1, "count": 7}}'
    (tmp_path / NORMS).write_bytes(older)
    assert load(tmp_path) is None
    assert publish(tmp_path, Norms.of({}, SEEN)).version == 1
    assert (tmp_path / "gnn_norms" / "older.json").read_bytes() == older
    assert load(tmp_path) == from_json(version_file(tmp_path, 1))


@pytest.mark.parametrize("text", ["{}", '{"loss": {"mean": 1.0}}', '{"loss": {"mean": 1.0, "var": 2.0}', '{"loss": 1.0}'])
def test_what_is_no_norms_file_of_anybody_is_an_error_and_not_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / NORMS).write_text(text)
    with pytest.raises(NormsError, match=r"gnn_norms\.json"):
        publish(tmp_path, Norms.default())
    assert (tmp_path / NORMS).read_text() == text


def observed(*rows: tuple[str, str, int | None, float, float, int]) -> pa.Table:
    """Rows of (run, metric, time, mean, var, count)."""
    names = ("training_run_id", "metric", "timestamp_ns", "mean", "var", "count")
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])


def test_the_newest_observation_of_each_metric_counts_and_of_equal_times_the_lowest_run() -> None:
    rows = [
        ("b", "loss", 7, 0.5, 0.25, 3), ("c", "loss", 7, 0.1, 0.2, 1), ("a", "loss", 6, 0.3, 0.4, 9),
        ("d", "loss", None, 1.0, 1.0, 4), ("b", "gradient_norm", 0, 2.0, 1.0, 5), ("a", "samples_per_s", None, 1.0, 1.0, 0),
    ]  # fmt: skip
    expected = {
        "loss": Observation(EwmaState(0.5, 0.25, 3), "b", 7),
        "gradient_norm": Observation(EwmaState(2.0, 1.0, 5), "b", 0),
    }
    assert newest_observations(observed(*rows)) == expected
    assert newest_observations(observed(*reversed(rows))) == expected


def test_what_nobody_observed_is_at_its_prior() -> None:
    norms = Norms.of({}, SEEN)
    prior = norms.metrics["gradient_norm"]
    start = EwmaState.start("gradient_norm")
    assert (prior.mean, prior.var, prior.count) == (start.mean, start.var, 0)
    assert (prior.training_run_id, prior.timestamp_ns) == (None, None)
    assert norms.version == Norms.default().version == 0


def test_the_digest_is_that_of_the_content_without_its_version(tmp_path: Path) -> None:
    norms = publish(tmp_path, Norms.of({}, SEEN))
    content = json.loads((tmp_path / NORMS).read_bytes())
    assert content.pop("version") == 1
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert norms.digest == hashlib.sha256(text.encode()).hexdigest()
    assert Norms(norms.priors, norms.metrics, 9).digest == norms.digest
    assert publish(tmp_path, Norms.default()).digest != norms.digest


def test_bytes_are_read_as_the_file_is_and_damage_is_told_with_its_place(tmp_path: Path) -> None:
    published = publish(tmp_path, Norms.of({}, SEEN))
    data = (tmp_path / NORMS).read_bytes()
    assert from_bytes(data, tmp_path / "x.json") == from_json(tmp_path / NORMS) == published
    with pytest.raises(NormsError, match=r"^x\.json"):
        from_bytes(b"{", Path("x.json"))
    for old, new, told in (
        (b'"count": 7', b'"count": "7"', "x.json: at loss.count: .*, found '7'; `tamiyo doctor` puts the newest kept"),
        (b'"alpha": 0.1', b'"alpha": 0.2', "x.json: expected alpha 0.1 and epsilon 1e-06, found 0.2 and 1e-06"),
        (b'"epsilon": 1e-06', b'"epsilon": 0.5', "x.json: expected alpha 0.1 and epsilon 1e-06, found 0.1 and 0.5"),
    ):
        assert old in data
        with pytest.raises(NormsError, match=told):
            from_bytes(data.replace(old, new), Path("x.json"))


def test_leftovers_of_an_interrupted_publication_are_removed(tmp_path: Path) -> None:
    publish(tmp_path, Norms.default())
    torn = [tmp_path / f".{NORMS}.1.tmp", tmp_path / "gnn_norms" / ".2.json.1.tmp"]
    other = tmp_path / ".promotions.jsonl.1.tmp"
    for path in (*torn, other):
        path.write_bytes(b"{")
    publish(tmp_path, Norms.of({}, SEEN))
    assert [path.exists() for path in (*torn, other)] == [False, False, True]


def test_a_file_beside_kept_versions_is_ours(tmp_path: Path) -> None:
    older = b'{"loss": {"mean": 1.0, "var": 2.0}}'
    (tmp_path / NORMS).write_bytes(older)
    assert is_older(tmp_path)
    publish(tmp_path, Norms.default())
    (tmp_path / NORMS).write_bytes(older)
    assert not is_older(tmp_path)
    with pytest.raises(NormsError, match=r"gnn_norms\.json"):
        load(tmp_path)
