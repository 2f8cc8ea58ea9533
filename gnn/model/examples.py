"""Build training examples, one row per measured (packet, seed, kernel, horizon), from reports, commands and packets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.configuration import RISK_CLASSES, TrainingConfig
from schemas.derived.training import EXAMPLES, KEYS
from schemas.kernels import KERNEL_INDEX
from schemas.splits import split_of

Floats = NDArray[np.float64]
NONE, LOW, MEDIUM, HIGH, CRITICAL = range(len(RISK_CLASSES))


def uplift(base_loss: Floats, control_delta: Floats, treated_delta: Floats) -> Floats:
    """Return u = ln((base + control) / (base + treated)), in nats of validation loss; NaN unless both sums are above 0."""
    control, treated = base_loss + control_delta, base_loss + treated_delta
    sound = (control > 0) & (treated > 0) & np.isfinite(control) & np.isfinite(treated)
    u = np.full(base_loss.shape, np.nan)
    u[sound] = np.log(control[sound] / treated[sound])
    return u


def risk_class(
    u: Floats, dip: Floats, late_sd: Floats, control_late_sd: Floats, diverged: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the risk class 0..4 of each replicate, first match from the worst; -1 if neither uplift nor divergence is known.

    critical: diverged or u < -1; high: u < -.25 or late loss sd > 4 (control sd + .02); medium: u < -.08 or mid-window
    dip < -.15; low: u < -.02 or dip < -.05; else none. A missing dip or spread never raises the class.
    """
    with np.errstate(invalid="ignore"):
        unsteady = late_sd > 4.0 * (control_late_sd + 0.02)
        rules = [
            (diverged | (u < -1.0), CRITICAL),
            ((u < -0.25) | unsteady, HIGH),
            ((u < -0.08) | (dip < -0.15), MEDIUM),
            ((u < -0.02) | (dip < -0.05), LOW),
            (np.isfinite(u), NONE),
        ]
    classes: NDArray[np.int64] = np.select([rule for rule, _ in rules], [name for _, name in rules], default=-1)
    classes[~np.isfinite(u) & ~diverged] = -1
    return classes


METRICS: Final = ("horizon_steps", "replicate", "uplift_test", "se", "dip", "late_loss_sd", "control_late_loss_sd")


@dataclass(frozen=True)
class Examples:
    """The table `training.examples`, and by reason the number of reports that gave no label."""

    table: pa.Table
    unusable: dict[str, int]


def build_examples(sources: Mapping[str, pa.Table], config: TrainingConfig) -> Examples:
    """Build the examples of all splits, sorted by key (see `EXAMPLES`); none if no report was measured against a control."""
    reports = _reports(sources["tamiyo.field_report"])
    joined = _with_state(_with_command(reports, sources["tamiyo.command"]), sources["tolaria.system_state"])
    judged = joined.with_columns(_fault().alias("fault"))
    counts = judged.filter(pl.col("fault").is_not_null())["fault"].value_counts(sort=True)
    unusable = dict(sorted(zip(counts["fault"].to_list(), counts["count"].to_list(), strict=True)))
    rows = _aggregate(judged.filter(pl.col("fault").is_null()), config)
    table = rows.select(EXAMPLES.names).to_arrow().cast(EXAMPLES)
    return Examples(table, unusable)


def _map_value(table: pa.Table, column: str, key: str) -> pa.ChunkedArray:
    return pc.map_lookup(table[column], pa.scalar(key), "first")


def _frame(columns: Mapping[str, pa.ChunkedArray | pa.Array]) -> pl.DataFrame:
    frame = pl.from_arrow(pa.table(dict(columns)))
    return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()


def _reports(table: pa.Table) -> pl.DataFrame:
    names = ("training_run_id", "command_id", "packet_id", "seed_id", "layer_id", "blueprint_id", "report_id", "non_finite")
    columns = {name: table[name] for name in names}
    columns |= {name: table[name].cast(pa.float64()) for name in ("base_loss", "control_delta", "treated_delta")}
    columns |= {name: _map_value(table, "metrics", name).cast(pa.float64()) for name in METRICS}
    frame = _frame(columns)
    terms = [frame[name].fill_null(np.nan).to_numpy() for name in ("base_loss", "control_delta", "treated_delta")]
    u = uplift(terms[0], terms[1], terms[2])
    diverged = frame["non_finite"].list.contains("treated_delta").fill_null(False).to_numpy()
    measured = [frame[name].fill_null(np.nan).to_numpy() for name in ("dip", "late_loss_sd", "control_late_loss_sd")]
    risk = risk_class(u, measured[0], measured[1], measured[2], diverged)
    return frame.with_columns(pl.Series("u", u).fill_nan(None), pl.Series("risk", risk))


def _with_command(reports: pl.DataFrame, table: pa.Table) -> pl.DataFrame:
    commands = _frame(
        {
            "command_id": table["command_id"],
            "command_seed": table["target_seed_id"],
            "command_kernel": table["seed_operation_blueprint_id"],
            "blending_method": _map_value(table, "annotations", "blending_method"),
        }
    ).unique("command_id", keep="first", maintain_order=True)
    joined = reports.join(commands, on="command_id", how="left", maintain_order="left")
    return joined.with_columns(
        pl.coalesce("seed_id", "command_seed").alias("seed_id"),
        pl.coalesce("blueprint_id", "command_kernel").alias("kernel"),
    )


def _with_state(reports: pl.DataFrame, table: pa.Table) -> pl.DataFrame:
    names = ("training_run_id", "packet_id", "blueprint_id", "experiment_name", "is_completion")
    states = _frame({name: table[name] for name in names}).rename({"blueprint_id": "host_id"})
    states = states.filter(~pl.col("is_completion").fill_null(False))
    states = states.unique(["training_run_id", "packet_id"], keep="first", maintain_order=True)
    parts = pl.col("experiment_name").str.splitn("/", 2)
    return reports.join(states, on=["training_run_id", "packet_id"], how="left", maintain_order="left").with_columns(
        pl.coalesce("host_id", "training_run_id").alias("host"),
        parts.struct.field("field_0").alias("data_set"),
        parts.struct.field("field_1").alias("architecture"),
    )


def _fault() -> pl.Expr:
    """Return the expression of why a report gives no label, NULL if it gives one."""
    no_label = pl.col("risk") < 0
    return (
        pl.when(no_label & (pl.col("base_loss").is_null() | pl.col("control_delta").is_null()))
        .then(pl.lit("no control_delta or base_loss"))
        .when(no_label)
        .then(pl.lit("no treated_delta, or a loss that is not positive"))
        .when(pl.col("packet_id").is_null() | pl.col("is_completion").is_null())
        .then(pl.lit("names no packet that was kept"))
        .when(pl.col("seed_id").is_null())
        .then(pl.lit("names no seed"))
        .when(~pl.col("kernel").is_in(list(KERNEL_INDEX)).fill_null(False))
        .then(pl.lit("names no kernel of the policy"))
        .when(pl.col("horizon_steps").is_null())
        .then(pl.lit("no horizon_steps"))
    )


def _aggregate(reports: pl.DataFrame, config: TrainingConfig) -> pl.DataFrame:
    """Aggregate replicates to one row per key: mean uplift, its standard error, the worst replicate's risk class.

    Replicates of all blending methods have equal weight; `blending_method` is the most frequent one, of equals the first by
    name. The first and second replicate are of that method, because another method on the same batches is not a replicate.
    """
    ordered = reports.with_columns(pl.col("horizon_steps").cast(pl.Int64).alias("horizon"))
    ordered = ordered.sort(*KEYS, "blending_method", "replicate", "report_id", nulls_last=True)
    method = pl.col("blending_method").drop_nulls().mode().sort().first().alias("usual")
    usual = ordered.group_by(*KEYS, maintain_order=True).agg(method)
    ordered = ordered.join(usual, on=list(KEYS), how="left", maintain_order="left")
    alike = (pl.col("blending_method") == pl.col("usual")) | pl.col("usual").is_null()
    count = pl.col("u").count()
    reported = (pl.col("se") ** 2).mean().sqrt()  # already the standard error of the mean over the replicates
    spread = pl.col("u").std() / count.sqrt()
    rows = ordered.group_by(*KEYS, maintain_order=True).agg(
        pl.col("layer_id").drop_nulls().first(),
        pl.col("u").mean(),
        pl.col("uplift_test").mean().alias("u_test"),
        pl.when(pl.col("se").count() > 0).then(reported).when(count > 1).then(spread).alias("se"),
        pl.len().cast(pl.Int64).alias("replicates"),
        pl.col("u").filter(alike).first().alias("u_first"),
        pl.col("u").filter(alike).get(1, null_on_oob=True).alias("u_second"),
        pl.col("uplift_test").filter(alike).first().alias("u_test_first"),
        pl.col("uplift_test").filter(alike).get(1, null_on_oob=True).alias("u_test_second"),
        pl.col("risk").max(),
        pl.col("usual").first().alias("blending_method"),
        pl.col("host", "data_set", "architecture").first(),
    )
    held_out = config.held_out_data_set
    split = [split_of(host, name, held_out) for host, name in zip(rows["host"], rows["data_set"], strict=True)]
    return rows.join(_by_method(ordered), on=list(KEYS), how="left", maintain_order="left").with_columns(
        (1.0 / (pl.col("se").fill_null(config.tau) ** 2 + config.tau**2)).alias("weight"),
        pl.Series("split", split, dtype=pl.String),
        pl.Series("risk_class", [RISK_CLASSES[risk] for risk in rows["risk"]], dtype=pl.String),
    )


def _by_method(reports: pl.DataFrame) -> pl.DataFrame:
    """Return the mean uplift of each key by blending method, in column `by_method`; no rows if no method is named."""
    named = reports.filter(pl.col("blending_method").is_not_null() & pl.col("u").is_not_null())
    means = named.group_by(*KEYS, "blending_method", maintain_order=True).agg(pl.col("u").mean())
    pairs = pl.struct(pl.col("blending_method").alias("method"), "u").alias("by_method")
    return means.group_by(*KEYS, maintain_order=True).agg(pairs)
