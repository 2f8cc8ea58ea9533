"""Fit norm priors on the Urza catalogue (features.md, `log_z`): mean and variance of four blueprint numbers.

With fewer than two distinct values, or a standard deviation below a tenth of the default's, the default is used.
"""

from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.artifacts import PriorNorm
from schemas.splits import data_set_of, is_published_on

Floats = NDArray[np.float64]

# metric -> (table, column, mean, standard deviation, transform)
_METRICS: Final = {
    "parameter_count": ("urza.parameter", "parameter_count", float(np.log1p(1e6)), 4.0, "log1p"),
    "learning_rate": ("urza.blueprint", "optimizer_learning_rate", float(np.log1p(0.01)), 0.02, "log1p"),
    "momentum": ("urza.blueprint", "optimizer_momentum", 0.9, 0.05, "identity"),
    "gradient_variance": ("urza.blueprint", "optimizer_gradient_variance", float(np.log1p(0.001)), 0.01, "log1p"),
}

DEFAULT_PRIORS: Final[Mapping[str, PriorNorm]] = {
    metric: PriorNorm.model_validate({"mean": mean, "var": deviation**2, "transform": transform})
    for metric, (_, _, mean, deviation, transform) in _METRICS.items()
}


def _values(table: pa.Table, column: str, hosts: Collection[str] | None) -> Floats:
    if column not in table.column_names or not table.num_rows:
        return np.empty(0)
    rows = table
    if hosts is not None:
        rows = table.filter(pc.is_in(table["blueprint_id"], value_set=pa.array(sorted(hosts), pa.string())))
    return np.asarray(rows[column].cast(pa.float64()).to_numpy(), dtype=np.float64)


def fit_prior(metric: str, values: Floats) -> PriorNorm:
    """Fit the prior of one metric to catalogue values (float64, NaN if missing); their order does not matter."""
    default = DEFAULT_PRIORS[metric]
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.log1p(values) if default.transform == "log1p" else values
    scaled = np.sort(scaled[np.isfinite(scaled)])
    if len(np.unique(scaled)) < 2:
        return default
    # summed in sorted order, so that the result is bit for bit the same for every order of the catalogue
    mean, var = float(np.mean(scaled)), float(np.var(scaled))
    if np.sqrt(var) < 0.1 * np.sqrt(default.var):
        return default
    return PriorNorm(mean=mean, var=var, transform=default.transform)


def fit_priors(sources: Mapping[str, pa.Table], hosts: Collection[str] | None) -> dict[str, PriorNorm]:
    """Fit the priors of parameter_count, learning_rate, momentum and gradient_variance to the Urza catalogue.

    `sources` holds `urza.parameter` and `urza.blueprint`. `hosts` are the blueprint ids of the training hosts if there is a
    split; None takes the whole catalogue.
    """
    fitted = {}
    for metric, (table, column, *_) in _METRICS.items():
        values = _values(sources[table], column, hosts) if table in sources else np.empty(0)
        fitted[metric] = fit_prior(metric, values)
    return fitted


def fitted_columns(sources: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Return the tables and columns that `fit_priors` reads, of those in `sources`."""
    wanted: dict[str, list[str]] = {}
    for table, column, *_ in _METRICS.values():
        wanted.setdefault(table, ["blueprint_id"]).append(column)
    return {
        table: sources[table].select([name for name in columns if name in sources[table].column_names])
        for table, columns in wanted.items()
        if table in sources
    }


def training_hosts(contracts: Mapping[str, pa.Table], held_out: str | None) -> set[str] | None:
    """Return the blueprint ids of hosts on which the published weights are trained; None if no packet names its host.

    Hosts of the data set `held_out` are left out (experiments are named `<data set>/<architecture>`).
    """
    packets = contracts["tolaria.system_state"].select(["blueprint_id", "experiment_name"])
    named = packets.filter(pc.not_equal(packets["blueprint_id"], "")).group_by(["blueprint_id", "experiment_name"])
    pairs = named.aggregate([]).to_pylist()
    if not pairs:
        return None
    kept_out = {row["blueprint_id"] for row in pairs if held_out and data_set_of(row["experiment_name"]) == held_out}
    return {row["blueprint_id"] for row in pairs if is_published_on(row["blueprint_id"])} - kept_out
