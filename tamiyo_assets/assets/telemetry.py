"""Publish what the pipeline says of itself: coverage under its telemetry names, table versions, the warehouse."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import pyarrow as pa
from dagster import ResourceParam

from gnn.coverage.ratios import coverage_figures, key_totals
from gnn.coverage.signals import coverage_signals, rows_of
from lake.alert_outbox import AlertOutbox
from lake.alerts.transitions import overdue
from lake.durable.publish import publish_file
from lake.exports.ledger import note_rebuilt
from lake.retirement import TABLE as RETIRED_TABLE
from lake.retirement import applied_digest
from lake.settings import Settings
from lake.store.commit_log import commit_time
from lake.store.table_store import TableStore
from lake.store.versions import VERSIONS, TableVersion, Versions
from schemas.contracts import TABLES
from schemas.derived.tables import DERIVED
from schemas.errors import StorageError
from schemas.features import GROUPS
from tamiyo_assets.assets.graphs import DATASET
from tamiyo_assets.assets.model import EXAMPLES, RESULTS
from tamiyo_assets.assets.reports import COLUMNS, LAST, Reporter, derived_columns, key_of, kinds_of, schema_specs
from tamiyo_assets.assets.upstream import EXPORTS

if TYPE_CHECKING:
    from gnn.coverage.sheets import SheetGaps

_OWNER = ["team:tamiyo"]
_SHOWN = 50
FEATURE_COVERAGE = "telemetry.feature_coverage"
WAREHOUSE = key_of("operations.warehouse")
_DERIVED = (RETIRED_TABLE, *(group.table for group in GROUPS), "coverage.by_key", "coverage.by_family", "coverage.gaps")


@dg.asset(
    key=key_of(FEATURE_COVERAGE),
    deps=[key_of("coverage.by_key"), key_of("features.blueprint"), key_of("urabrask.bsds")],
    group_name="telemetry",
    kinds=kinds_of(key_of(FEATURE_COVERAGE), "deltalake"),
    owners=_OWNER,
    description="tamiyo.gnn.feature_coverage (mean over keys and per family), missing and partial sheets, degraded_inputs.",
    metadata={COLUMNS: derived_columns(FEATURE_COVERAGE)},
    check_specs=schema_specs([FEATURE_COVERAGE]),
)
def feature_coverage(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    tables: ResourceParam[TableStore],
    versions: ResourceParam[Versions],
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Write the signals as rows; the panel writes them to `metrics.prom` too."""
    figures, gaps = coverage_figures(key_totals(tables)), _sheet_gaps(tables)
    signals = coverage_signals(figures, len(gaps.missing), len(gaps.partial)) if figures else []
    found = {
        "bsds_missing": dg.MetadataValue.json(gaps.missing[:_SHOWN]),
        "bsds_partial": dg.MetadataValue.json(gaps.partial[:_SHOWN]),
    } | {signal.name: signal.value for signal in signals}
    yield from Reporter(context, versions).written(FEATURE_COVERAGE, rows_of(signals), found)


def _sheet_gaps(tables: TableStore) -> "SheetGaps":
    """Find the gaps of all blueprint nodes of all graphs."""
    from gnn.coverage.sheets import sheet_gaps
    from gnn.join.rows import Rows
    from gnn.join.sheets import Sheets

    nodes = Rows(tables.read("features.blueprint", columns=["element_id", "timestamp_ns"]))
    ids = nodes.labels("element_id")
    sheets = Sheets(tables.read("urabrask.bsds"), {word: code for code, word in enumerate(ids.words)})
    return sheet_gaps(sheets, ids.take(np.arange(nodes.size)), nodes.times("timestamp_ns"))


@dg.asset(
    key=key_of(VERSIONS),
    deps=[key_of(name) for name in (*TABLES, *_DERIVED)],
    group_name="telemetry",
    kinds=kinds_of(key_of(VERSIONS), "deltalake"),
    owners=_OWNER,
    description="The content digest of every table, and of each training run's share of it.",
    metadata={COLUMNS: derived_columns(VERSIONS)},
    check_specs=schema_specs([VERSIONS]),
)
def table_versions(
    context: dg.AssetExecutionContext, versions: ResourceParam[Versions]
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Write one row per table (training_run NULL), and one per table and training run."""
    table = pa.concat_tables([_version_rows(versions.of(name)) for name in (*TABLES, *_DERIVED)])
    yield from Reporter(context, versions).written(VERSIONS, table)


def _version_rows(version: TableVersion) -> pa.Table:
    """Return the rows of one table: its own, then those of its training runs, sorted."""
    runs = sorted(version.runs)
    parts = [version.runs[run] for run in runs]
    columns = {
        "table": [version.name] * (1 + len(runs)),
        "training_run": [None, *runs],
        "digest": [version.digest, *(part.digest for part in parts)],
        "rows": [version.rows, *(part.rows for part in parts)],
    }
    return pa.table(columns, schema=DERIVED[VERSIONS])


@dg.asset(
    key=WAREHOUSE,
    deps=[key_of(VERSIONS), key_of(FEATURE_COVERAGE), EXAMPLES, *(key_of(name) for name in RESULTS)],
    group_name="telemetry",
    kinds=kinds_of(WAREHOUSE, "duckdb"),
    owners=_OWNER,
    op_tags=LAST,  # its end is the end of a rebuild
    description="warehouse.duckdb: the current version of every table as a view, for people with SQL.",
)
def warehouse(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    tables: ResourceParam[TableStore],
    versions: ResourceParam[Versions],
    alerts: ResourceParam[AlertOutbox],
) -> dg.MaterializeResult[None]:
    """Build the file aside and replace it, if any table has files that it does not show."""
    publish_warehouse(settings.home, tables)
    if {EXPORTS, WAREHOUSE, DATASET} <= context.job_def.asset_layer.selected_asset_keys:
        note_rebuilt(settings.home, applied_digest(tables))
    late = overdue(alerts.read(), alerts.clock())
    contents = json.dumps([[name, versions.of(name).digest] for name in tables.names()])
    return Reporter(context, versions).asset(
        WAREHOUSE,
        hashlib.sha256(contents.encode()).hexdigest(),
        {
            "path": dg.MetadataValue.path(settings.home / "warehouse.duckdb"),
            "tables": len(tables.names()),
            **({"alerts_overdue": len(late)} if late else {}),
        },
    )


def publish_warehouse(home: Path, tables: TableStore) -> None:
    """Publish the warehouse if it does not show the newest commit of every table.

    It is built in a process of its own (see `lake.warehouse`). Raises StorageError with what went wrong.
    """
    shown, path = home / "digests" / "warehouse.json", home / "warehouse.duckdb"
    newest = {name: (version, commit_time(tables.path(name), version)) for name, version in tables.versions().items()}
    commits = json.dumps([str(path), newest]).encode()
    if path.exists() and shown.exists() and shown.read_bytes() == commits:
        return
    command = [sys.executable, "-m", "lake.warehouse", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StorageError(f"warehouse of {home}: expected to publish it, found: {done.stderr[-2000:]}")
    publish_file(shown, commits)


TELEMETRY_ASSETS = (feature_coverage, table_versions, warehouse)
