"""Run a whole experiment, as the pipeline does: labels, folds, baselines, networks, calibration, evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from gnn.graph.batch import GraphStore
from gnn.model.baselines import Rows, fit_baselines
from gnn.model.calibration import Calibration, calibrate, calibrated, cross_calibrated
from gnn.model.evaluation import outcomes_of, rewarded_by_test
from gnn.model.predictions import Predictions, join, predict
from gnn.model.ranks import Ranks
from gnn.model.report import CURVE, OFF, Part, report
from gnn.model.rounds import NOTHING, CataloguePriors, Fits, Problem, Round, fold_rounds, pose, published_round
from gnn.model.site import flat_features
from gnn.model.targets import Labels
from gnn.model.trained import HeadStatus, TrainedModel
from gnn.model.training import Fitted, Progress
from gnn.norms.priors import DEFAULT_PRIORS
from schemas.configuration import TrainingConfig
from schemas.features import LAYER
from schemas.kernels import KERNELS
from schemas.splits import HELD_OUT, host_digest

UNFITTED: Final = CataloguePriors(DEFAULT_PRIORS, lambda _: DEFAULT_PRIORS)
SILENT: Final = ".no_messages"


@dataclass
class _Said:
    """Collects predictions by part of the problem and model."""

    by_part: dict[str, dict[str, Predictions]] = field(default_factory=dict)

    def add(
        self, model: str, rounds: Sequence[Round], folds: Sequence[Predictions], published: Mapping[str, Predictions]
    ) -> None:
        """Add a model's predictions: `folds`, each network's for its own fold, and `published` for the other parts."""
        order = np.argsort(np.concatenate([one.judges for one in rounds]))
        self.by_part.setdefault("out_of_fold", {})[model] = join(folds).take(order)
        for part, each in published.items():
            self.by_part.setdefault(part, {})[model] = each


@dataclass(frozen=True)
class _Plan:
    """The trainings of one experiment: one a fold, the published one, and those of the configured comparisons."""

    folds: Sequence[Round]
    last: Round
    silent: Sequence[Round]
    curve: Mapping[float, Sequence[Round]]

    @classmethod
    def of(cls, problem: Problem, config: TrainingConfig, priors: CataloguePriors) -> "_Plan":
        """Plan the trainings of `problem`; only the published one if there is too little to judge."""
        folds, last = fold_rounds(problem, config.model, priors), published_round(problem, config.model, priors)
        if not folds or not all(_has_labels(problem, one) for one in (*folds, last)):
            return cls((), last, (), {})
        return cls(folds, last, _silent_rounds(problem, config, priors), _curve_rounds(problem, config, priors))

    @property
    def rounds(self) -> list[Round]:
        """All trainings."""
        return [*self.folds, self.last, *self.silent, *(one for each in self.curve.values() for one in each)]


def train(
    dataset: GraphStore,
    examples: pa.Table,
    config: TrainingConfig,
    checkpoint_dir: Path | None = None,
    progress: Progress | None = None,
    unusable: Mapping[str, int] | None = None,
    processes: int = 1,
    priors: CataloguePriors = UNFITTED,
    kernels: Tensor | None = None,
    ranks: Ranks | None = None,
) -> TrainedModel:
    """Train, calibrate and evaluate TamiyoGNN beside its baselines; deterministic and resumable.

    `dataset` holds unscaled graphs; `priors` scale them, fold by fold; `kernels` are the kernels' descriptors. `examples` is
    `training.examples`, `unusable` the number of reports that gave no label, by reason. A required head without a label stays
    untrained and is marked so; this is no error. With `processes` above 1 and a checkpoint directory, two networks are trained
    at a time: the same weights in less time. With `ranks`, of which this process is the first, the other ones train their
    share (`train_share`) instead.
    """
    problem = pose(dataset, examples, config)
    fits = Fits(problem, config, checkpoint_dir, progress, kernels)
    fitted, said, skipped = _fit_all(fits, _Plan.of(problem, config, priors), processes, ranks)
    calibration, parts = _calibrate(problem, config, said)
    result = report(problem, parts, config, skipped)
    return TrainedModel(
        network=fitted.network,
        config=config,
        horizon=problem.horizon,
        heads=head_status(problem, unusable or {}),
        kernels=tuple(KERNELS[k] for k in np.unique(problem.labels.kernel[problem.published])),
        site_kernels=site_kernels(dataset, problem.labels.take(problem.published)),
        calibration=calibration,
        metrics=result.metrics,
        metrics_missing=result.missing,
        summary=_summary(problem, fitted, unusable or {}),
        history=fitted.history,
        tables={"training.examples": examples} | result.tables,
    )


def train_share(
    ranks: Ranks,
    dataset: GraphStore,
    examples: pa.Table,
    config: TrainingConfig,
    checkpoint_dir: Path | None,
    progress: Progress | None,
    priors: CataloguePriors,
    kernels: Tensor | None,
) -> None:
    """Fit this process's share of the networks, and hand them to the first one, which calls `train` with the same inputs."""
    problem = pose(dataset, examples, config)
    ranks.share(Fits(problem, config, checkpoint_dir, progress, kernels), _Plan.of(problem, config, priors).rounds)


def _fit_all(fits: Fits, plan: _Plan, processes: int, ranks: Ranks | None) -> tuple[Fitted, _Said, dict[str, str]]:
    """Return the published network, all models' predictions, and why models are absent.

    There are no predictions if there is too little to judge.
    """
    problem, config, folds, last, said = fits.problem, fits.config, plan.folds, plan.last, _Said()
    skipped: dict[str, str] = {}
    with fits.beside(plan.rounds, processes if ranks is None else 1) as finish:
        if folds:
            skipped = _baselines(problem, config, [*folds, last], said)
        fits = finish() if ranks is None else ranks.share(fits, plan.rounds)
    fitted = fits(last)
    if not folds:
        return fitted, said, {}
    said.add("model", folds, _of_folds(fits, folds), _elsewhere(fits, last, fitted))
    if plan.silent:
        *own, whole = plan.silent
        said.add("no_messages", own, _of_folds(fits, own), _elsewhere(fits, whole, fits(whole)))
    else:
        skipped["no_messages"] = OFF
    for share, each in plan.curve.items():
        said.add(f"{CURVE}{share}", each, _of_folds(fits, each), {})
    return fitted, said, skipped


def _silent_rounds(problem: Problem, config: TrainingConfig, priors: CataloguePriors) -> list[Round]:
    """Return the rounds of the ablation without messages, the published one last; none if it is switched off."""
    if not config.no_messages:
        return []
    model = config.model.model_copy(update={"messages": False})
    return [*fold_rounds(problem, model, priors, what=SILENT), published_round(problem, model, priors, what=SILENT)]


def _curve_rounds(problem: Problem, config: TrainingConfig, priors: CataloguePriors) -> dict[float, list[Round]]:
    """Return the rounds of the learning curve, by share of the training hosts."""
    return {
        share: fold_rounds(problem, config.model, priors, what=f".share_{share}", share=share)
        for share in config.learning_curve
    }


def _of_folds(fits: Fits, rounds: Sequence[Round]) -> list[Predictions]:
    """Return the predictions of each fold's network for its fold."""
    problem = fits.problem
    found = []
    for one in rounds:
        network, labels = fits(one).network, problem.labels.take(one.judges)
        found.append(predict(network, one.scaled(problem), labels, fits.config.batch_graphs))
    return found


def _elsewhere(fits: Fits, one: Round, fitted: Fitted) -> dict[str, Predictions]:
    """Return the predictions of the published network for the parts that it never saw."""
    problem, size = fits.problem, fits.config.batch_graphs
    parts = {name: problem.labels.take(rows) for name, rows in problem.parts.items() if name != "out_of_fold"}
    return {name: predict(fitted.network, one.scaled(problem), labels, size) for name, labels in parts.items()}


def _baselines(problem: Problem, config: TrainingConfig, rounds: Sequence[Round], said: _Said) -> dict[str, str]:
    """Fit every baseline on the rows of each round and predict the same parts; return why baselines are absent."""
    *folds, last = rounds
    answers: dict[str, list[Predictions]] = {}
    for one in folds:
        rows = _rows(problem, one, config)
        for name, baseline in fit_baselines(rows.take(one.rows), config).items():
            answers.setdefault(name, []).append(baseline(rows.take(one.judges)))
    rows = _rows(problem, last, config)
    parts = {part: rows.take(at) for part, at in problem.parts.items() if part != "out_of_fold"}
    for name, baseline in fit_baselines(rows.take(last.rows), config).items():
        said.add(name, folds, answers[name], {part: baseline(each) for part, each in parts.items()})
    wanted = {"boosting": config.boosting, "gaussian_process": config.gaussian_process}
    return {name: OFF for name, on in wanted.items() if not on}


def _rows(problem: Problem, one: Round, config: TrainingConfig) -> Rows:
    """Return all labels with the site vectors as one round scales them."""
    sites = flat_features(one.scaled(problem), problem.labels, config.batch_graphs)
    table = problem.examples.select(["architecture", "data_set"]).take(problem.labels.example)
    text = {name: np.array(pc.fill_null(table[name], "unknown").to_pylist(), dtype=str) for name in table.column_names}
    return Rows(problem.labels, sites, problem.host, text["architecture"], text["data_set"])


def _calibrate(problem: Problem, config: TrainingConfig, said: _Said) -> tuple[Calibration, dict[str, Part]]:
    """Return the published calibration, and the parts with all models' calibrated answers.

    The calibration is fitted on out-of-fold predictions for hosts that the published weights were trained on.
    """
    if not said.by_part:
        return calibrate(Predictions(np.zeros(0), np.zeros(0)), problem.labels.take(NOTHING), config.interval), {}
    rows = problem.parts["out_of_fold"]
    labels, fold = problem.labels.take(rows), problem.fold[rows]
    seen = np.flatnonzero(np.isin(rows, problem.published))
    parts = {name: Part(outcomes_of(problem.examples, problem.labels.take(at)), fold, {}) for name, at in problem.parts.items()}
    calibrations = {}
    for name, each in said.by_part["out_of_fold"].items():
        calibrations[name] = calibrate(each.take(seen), labels.take(seen), config.interval)
        parts["out_of_fold"].answers[name] = cross_calibrated(each, labels, fold, config.interval)
    for part in ("bucket_7", HELD_OUT):
        for name, each in said.by_part[part].items():
            parts[part].answers[name] = calibrated(each, calibrations[name])
    return calibrations["model"], parts


def _has_labels(problem: Problem, one: Round) -> bool:
    return int(np.isfinite(problem.labels.uplift[one.rows]).sum()) > 1


def head_status(problem: Problem, unusable: Mapping[str, int]) -> dict[str, HeadStatus]:
    """Return which heads have labels on training hosts. A single kernel in a state is no label for the policy."""
    labels = problem.labels.take(problem.published)
    known = np.isfinite(labels.uplift)
    _, counts = np.unique(labels.graph[known], return_counts=True)
    several = int((np.isfinite(labels.methods).sum(1) > 1).sum())
    found = {"policy": int(counts[counts > 1].sum()), "value": int(known.sum()), "risk": int((labels.risk >= 0).sum())}
    why = "; ".join([*_other_horizons(problem), *(f"{count} reports: {reason}" for reason, count in sorted(unusable.items()))])
    heads = {
        name: HeadStatus(n > 0, n, None if n else f"no usable label ({why or 'no field reports'})") for name, n in found.items()
    }
    heads["blending"] = HeadStatus(several > 0, several, None if several else "no graft was measured with two blending methods")
    for name in ("params", "schedule", "breaker"):
        heads[name] = HeadStatus(False, 0, "no measured outcome names its target")
    heads["telemetry"] = HeadStatus(False, 0, "a projection, not a target")
    return heads


def _other_horizons(problem: Problem) -> list[str]:
    """Return a message about the labels at other horizons if there are none at the configured one."""
    counts = {row["values"]: row["counts"] for row in pc.value_counts(problem.examples["horizon"].combine_chunks()).to_pylist()}
    if problem.horizon in counts or not counts:
        return []
    listed = ", ".join(f"{count} at {horizon}" for horizon, count in sorted(counts.items()))
    return [
        f"none at horizon {problem.horizon}, but {listed}; name one of these as `horizon` under [training] of pipeline.toml"
    ]


def site_kernels(store: GraphStore, labels: Labels) -> dict[int, tuple[str, ...]]:
    """Return the kernels measured on training hosts, by the layer_type id of the first layer that their seed monitors."""
    column = [feature.name for feature in LAYER.categorical].index("layer_type")
    found: dict[int, set[int]] = {}
    for graph in labels.graphs().tolist():
        batch = store.batch([graph])
        seeds, layers = batch.edge_index[("seed", "monitors", "layer")].numpy()
        types = batch.ids["layer"][:, column].numpy()
        for row in np.flatnonzero(labels.graph == graph):
            for layer in layers[seeds == labels.seed[row]][:1]:
                found.setdefault(int(types[layer]), set()).add(int(labels.kernel[row]))
    return {kind: tuple(KERNELS[k] for k in sorted(found[kind])) for kind in sorted(found)}


def _summary(problem: Problem, fitted: Fitted, unusable: Mapping[str, int]) -> dict[str, Any]:
    trained = np.unique(problem.host[problem.published]).tolist()
    return {
        "horizon_steps": problem.horizon,
        "reward": "uplift_test" if rewarded_by_test(problem.examples) else "u: no report has uplift_test",
        "hosts": len(trained),
        "host_digests": sorted(map(host_digest, trained)),
        "examples": len(problem.published),
        "graphs": len(problem.labels.take(problem.published).graphs()),
        "unusable_reports": dict(unusable),
        "examples_without_a_graph": problem.unplaced,
        "epochs": fitted.epochs,
        "best_epoch": fitted.best_epoch,
    }
