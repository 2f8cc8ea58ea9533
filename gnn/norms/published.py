"""Publish and read `gnn_norms.json`: flat, strict JSON, with every version kept beside it.

For each EWMA metric it holds the state after the newest observation over all runs (ties: the lowest run id), and for each
catalogue number the fitted prior. The states are for outside readers: no run of ours ever starts from them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pydantic import ValidationError

from gnn.norms.ewma import EwmaState
from gnn.norms.priors import DEFAULT_PRIORS
from lake.durable.publish import ensure_dir, lock, publish_file, sweep
from lake.durable.strict_json import dump_object, parse_object, read_object
from schemas.artifacts import ALPHA, EPSILON, NORMS_SCHEMA, MetricNorm, NormsFile, PriorNorm
from schemas.errors import NormsError
from schemas.features import EWMA_METRICS, PRIOR_METRICS

NORMS = "gnn_norms.json"
VERSIONS = "gnn_norms"
LOCK = ".gnn_norms.lock"
_OLDER = "older.json"


@dataclass(frozen=True)
class Observation:
    """The newest observation of one metric: the state after it, its run and its time in nanoseconds."""

    state: EwmaState
    training_run_id: str
    timestamp_ns: int


@dataclass(frozen=True)
class Norms:
    """Fitted priors by catalogue number, and the newest EWMA states by metric; `version` 0 means not published yet."""

    priors: Mapping[str, PriorNorm]
    metrics: Mapping[str, MetricNorm]
    version: int = 0

    @classmethod
    def of(cls, priors: Mapping[str, PriorNorm], newest: Mapping[str, Observation]) -> "Norms":
        """Return norms from fitted priors and the newest observation of each metric.

        A metric without an observation is at its prior, and a catalogue number without a fit has the default prior.
        """
        return cls(
            {name: priors.get(name, DEFAULT_PRIORS[name]) for name in PRIOR_METRICS},
            {name: _metric(name, newest.get(name)) for name in EWMA_METRICS},
        )

    @classmethod
    def default(cls) -> "Norms":
        """Return the norms before anything was measured or fitted."""
        return cls.of({}, {})

    @property
    def digest(self) -> str:
        """The SHA-256 (hex) of the content without the version, as canonical JSON: keys sorted, no spaces."""
        content = {key: value for key, value in self.to_object().items() if key != "version"}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def to_object(self) -> dict[str, object]:
        """Return the published JSON object. Raises NormsError if a number is not finite."""
        try:
            entries = {name: entry.model_dump() for name, entry in (*self.metrics.items(), *self.priors.items())}
        except ValidationError as damage:
            raise NormsError(f"norms: {damage}") from damage
        scalars = {"schema": NORMS_SCHEMA, "alpha": ALPHA, "epsilon": EPSILON, "version": self.version}
        return {**entries, **scalars}

    def to_json(self) -> bytes:
        """Return the published bytes."""
        try:
            return dump_object(self.to_object())
        except ValueError as damage:
            raise NormsError(f"norms: expected finite numbers, found one that is not: {damage}") from damage


def _metric(name: str, newest: Observation | None) -> MetricNorm:
    if newest is None:
        start = EwmaState.start(name)
        return MetricNorm(mean=start.mean, var=start.var, count=0, training_run_id=None, timestamp_ns=None)
    state = newest.state
    return MetricNorm(
        mean=state.mean,
        var=state.var,
        count=state.count,
        training_run_id=newest.training_run_id,
        timestamp_ns=newest.timestamp_ns,
    )


def from_json(path: Path) -> Norms:
    """Read a norms file.

    Raises NormsError, which names the file and the place of what is damaged, missing or not finite.
    """
    return _norms(read_object(path, NormsError), path)


def from_bytes(data: bytes, path: Path) -> Norms:
    """Parse the bytes of a norms file. Raises NormsError, which names the file as `path`."""
    return _norms(parse_object(data, path, NormsError), path)


def _norms(parsed: Mapping[str, object], path: Path) -> Norms:
    try:
        file = NormsFile.model_validate(parsed)
    except ValidationError as damage:
        first = damage.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise NormsError(f"{path}: at {place}: {first['msg']}, found {first.get('input')!r}; {_ADVICE}") from None
    if (file.alpha, file.epsilon) != (ALPHA, EPSILON):
        raise NormsError(f"{path}: expected alpha {ALPHA} and epsilon {EPSILON}, found {file.alpha} and {file.epsilon}")
    return Norms(file.priors(), file.metrics(), file.version)


_ADVICE = "`tamiyo doctor` puts the newest kept version back"


def load(home: Path) -> Norms | None:
    """Return the published norms of a home; None if there are none yet, or only those of an older system."""
    path = home / NORMS
    return from_json(path) if path.exists() and not is_older(home) else None


def is_older(home: Path) -> bool:
    """Return whether the norms of a home come from an older system: a mean and var per metric, no scalars, no version."""
    if any((home / VERSIONS).glob("[0-9]*.json")):
        return False
    try:
        parsed = read_object(home / NORMS, NormsError)
    except NormsError:
        return False
    return (
        "schema" not in parsed
        and bool(parsed)
        and all(isinstance(e, dict) and {"mean", "var"} <= e.keys() for e in parsed.values())
    )


def version_file(home: Path, version: int) -> Path:
    """Return the path where a version is kept."""
    return home / VERSIONS / f"{version}.json"


def publish(home: Path, norms: Norms) -> Norms:
    """Publish `norms` as the next version: first its kept copy, then the current file. Equal norms are not published again.

    A file of an older system is kept beside the versions; no run of ours starts from its states.
    """
    ensure_dir(home)
    with lock(home / LOCK):
        sweep(home / VERSIONS)
        sweep(home, NORMS)
        current = load(home)
        if current is not None and current.digest == norms.digest:
            return current
        number = 1 if current is None else current.version + 1
        new = Norms(norms.priors, norms.metrics, number)
        data = new.to_json()
        if current is None and (home / NORMS).exists():
            publish_file(home / VERSIONS / _OLDER, (home / NORMS).read_bytes())
        publish_file(version_file(home, number), data)
        publish_file(home / NORMS, data)
        return new


def newest_observations(rows: pa.Table) -> dict[str, Observation]:
    """Return for each metric the state after its newest observation over all runs; of equal times, the lowest run id's."""
    found: dict[str, Observation] = {}
    for row in sorted(rows.to_pylist(), key=lambda r: r["training_run_id"]):
        time = row["timestamp_ns"]
        if time is not None and (row["metric"] not in found or time > found[row["metric"]].timestamp_ns):
            state = EwmaState(row["mean"], row["var"], row["count"])
            found[row["metric"]] = Observation(state, row["training_run_id"], time)
    return found
