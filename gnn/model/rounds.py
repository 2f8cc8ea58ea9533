"""Run the trainings of one experiment: one without each fold in turn, then the published weights; resumable."""

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
import torch_geometric
from numpy.typing import NDArray
from torch import Tensor

from gnn.graph.batch import GraphStore
from gnn.graph.scale import ScaledGraphs
from gnn.model.alongside import alongside
from gnn.model.checkpoint import Checkpoints
from gnn.model.targets import Ints, Labels, locate
from gnn.model.training import Fitted, Progress, fit
from schemas.artifacts import PriorNorm
from schemas.configuration import ModelConfig, TrainingConfig
from schemas.splits import FOLD_NAMES, HELD_OUT, host_digest, is_published_on

Priors = Mapping[str, PriorNorm]
PUBLISHED: Final = "published"
_READ_AT_ONCE: Final = 64  # graphs
NOTHING: Final = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class CataloguePriors:
    """Priors of `log_z` features: the published ones, and `on`, which fits them on the named hosts."""

    published: Priors
    on: Callable[[Collection[str]], Priors]


@dataclass(frozen=True)
class Problem:
    """The labelled graphs of one experiment at one horizon; `labels` are sorted by graph.

    `host` and `fold` are those of each label; `fold` is -1 for the held-out data set. The graphs are not scaled yet.
    """

    store: GraphStore
    examples: pa.Table
    horizon: int
    labels: Labels
    host: NDArray[np.str_]
    fold: Ints
    unplaced: int

    @cached_property
    def published(self) -> Ints:
        """The rows that the published weights are trained on."""
        return np.flatnonzero((self.fold >= 0) & self._open)

    @cached_property
    def parts(self) -> dict[str, Ints]:
        """The rows to judge: `out_of_fold` with the folds' networks, `bucket_7` and `held_out` with the published one."""
        rows = {"out_of_fold": self.fold >= 0, "bucket_7": (self.fold >= 0) & ~self._open, HELD_OUT: self.fold < 0}
        return {name: np.flatnonzero(kept) for name, kept in rows.items()}

    @cached_property
    def _open(self) -> NDArray[np.bool_]:
        names, place = np.unique(self.host, return_inverse=True)
        return np.array([is_published_on(name) for name in names.tolist()], dtype=bool)[place]

    @cached_property
    def graphs_digest(self) -> str:
        """The digest of all graphs that have a label."""
        digest, graphs = hashlib.sha256(), self.labels.graphs().tolist()
        for start in range(0, len(graphs), _READ_AT_ONCE):
            batch = self.store.batch(graphs[start : start + _READ_AT_ONCE])
            for part in (batch.x, batch.ids, batch.ptr, batch.edge_index, batch.edge_attr, batch.edge_ids):
                for tensor in part.values():
                    digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()


def pose(store: GraphStore, examples: pa.Table, config: TrainingConfig) -> Problem:
    """Locate the examples of the configured horizon in the graphs."""
    at = np.flatnonzero(examples["horizon"].to_numpy() == config.horizon)
    labels, unplaced = locate(store, examples.take(at))
    labels = Labels(**(vars(labels) | {"example": at[labels.example]}))
    rows = examples.select(["host", "split"]).take(labels.example)
    folds = {name: number for number, name in enumerate(FOLD_NAMES)}
    fold = np.array([folds.get(name, -1) for name in rows["split"].to_pylist()], dtype=np.int64)
    host = np.array(rows["host"].to_pylist(), dtype=str)
    return Problem(store, examples, config.horizon, labels, host, fold, unplaced)


@dataclass(frozen=True)
class Round:
    """One training: its name, the rows that it learns from, the priors fitted on their hosts, its network's configuration.

    `judges` are the rows of its fold, which its network is used to judge; the published round has none.
    """

    name: str
    rows: Ints
    judges: Ints
    priors: Priors
    model: ModelConfig

    def scaled(self, problem: Problem) -> ScaledGraphs:
        """Return the graphs as this round's network sees them."""
        return ScaledGraphs(problem.store, self.priors)


def fold_rounds(
    problem: Problem, model: ModelConfig, priors: CataloguePriors, *, what: str = "", share: float = 1.0
) -> list[Round]:
    """Return one round per fold that has hosts, trained on a `share` of the other folds' hosts.

    `what` is appended to their names, to tell them apart from other rounds.
    """
    found = []
    for number in np.unique(problem.fold[problem.fold >= 0]).tolist():
        rows = _of_share(problem, np.flatnonzero((problem.fold >= 0) & (problem.fold != number)), share)
        fitted = priors.on(np.unique(problem.host[rows]).tolist())
        found.append(Round(FOLD_NAMES[number] + what, rows, np.flatnonzero(problem.fold == number), fitted, model))
    return found


def published_round(problem: Problem, model: ModelConfig, priors: CataloguePriors, *, what: str = "") -> Round:
    """Return the training whose weights are published."""
    return Round(PUBLISHED + what, problem.published, NOTHING, priors.published, model)


def _of_share(problem: Problem, rows: Ints, share: float) -> Ints:
    """Return the rows of a `share` of their hosts, which are chosen in order of their digests."""
    if share == 1.0:
        return rows
    hosts = sorted(np.unique(problem.host[rows]).tolist(), key=host_digest)
    return rows[np.isin(problem.host[rows], hosts[: max(1, round(share * len(hosts)))])]


@dataclass(frozen=True)
class Fits:
    """Fits rounds; each goes on from its checkpoint if there is one, and does nothing more if it was finished.

    `fitted` holds networks that are there already, by the name of their round.
    """

    problem: Problem
    config: TrainingConfig
    checkpoints: Path | None
    progress: Progress | None
    kernels: Tensor | None = None  # descriptors of the kernels, see `gnn.model.kernel_vectors`
    fitted: Mapping[str, Fitted] = field(default_factory=dict)

    def __call__(self, one: Round, progress: Progress | None = None) -> Fitted:
        """Fit the network of a round."""
        if one.name in self.fitted:
            return self.fitted[one.name]
        told = progress or self.progress
        path = self.checkpoints / f"{one.name}.pt" if self.checkpoints is not None else None
        kept = Checkpoints(path, self._fingerprint(one), self.config.checkpoint_seconds)
        labels = self.problem.labels
        named = (lambda _, done, of: told(one.name, done, of)) if told is not None else None
        store = one.scaled(self.problem)
        return fit(store, labels.take(one.rows), labels.take(NOTHING), self.config, one.model, kept, named, self.kernels)

    def _fingerprint(self, one: Round) -> str:
        """Return the digest of everything that decides the weights: configuration, labels, graphs, priors, versions."""
        digest = hashlib.sha256(self.problem.graphs_digest.encode())
        digest.update(self.config.model_dump_json().encode() + one.model.model_dump_json().encode())
        digest.update("".join(f"{name} {prior.model_dump_json()}" for name, prior in sorted(one.priors.items())).encode())
        digest.update(f"{torch.__version__} {torch_geometric.__version__}".encode())
        digest.update(b"" if self.kernels is None else self.kernels.numpy().tobytes())
        for column in vars(self.problem.labels.take(one.rows)).values():
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    @contextmanager
    def beside(self, rounds: Sequence[Round], processes: int) -> Iterator[Callable[[], "Fits"]]:
        """Fit `rounds` in another process, the last one first, while the body runs; yield a function that does the rest.

        That function returns these fits. Without another process or a directory for checkpoints, nothing is fitted ahead: each
        round is fitted when it is used.
        """
        if self.checkpoints is None or processes < 2 or len(rounds) < 2 or not len(self.problem.labels):
            yield lambda: self
            return
        claims = self.checkpoints / "claims"
        shutil.rmtree(claims, ignore_errors=True)
        claims.mkdir(parents=True)
        _ = self.problem.graphs_digest  # computed once here, so that the other process need not
        quiet = replace(self, progress=None)
        with alongside(_work, quiet, rounds[::-1], claims, wanted=True) as wait:
            yield partial(_share_work, self, rounds, claims, wait)


def _share_work(fits: Fits, rounds: Sequence[Round], claims: Path, wait: Callable[[], None]) -> Fits:
    _work(fits, rounds, claims, None)
    wait()
    return fits


def _work(fits: Fits, rounds: Sequence[Round], claims: Path, progress: Any) -> None:
    """Fit every round that no other process has begun."""
    for one in rounds:
        try:
            (claims / one.name).touch(exist_ok=False)
        except FileExistsError:
            continue
        fits(one, progress)
