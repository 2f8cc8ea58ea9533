"""Check Urabrask's safety sheets: blueprints of graphs without one, or for which making one failed."""

from typing import Final

import dagster as dg
from dagster import ResourceParam

from lake.exports.ledger import Ledger
from lake.settings import Settings
from lake.store.table_store import TableStore
from tamiyo_assets.assets.problems import Problem, check_result, counted_runs
from tamiyo_assets.assets.reports import key_of

SHEETS: Final = key_of("urabrask.bsds")
_SYSTEM: Final = ("urabrask",)


@dg.asset_check(
    asset=SHEETS, additional_deps=[key_of("features.blueprint")], description="Every blueprint of a graph has a sheet in time."
)
def bsds_missing(tables: ResourceParam[TableStore]) -> dg.AssetCheckResult:
    """WARN with the blueprints of graphs that have no sheet which was issued before the packet, and the runs of these."""
    from gnn.coverage.sheets import runs_without_sheet

    nodes = tables.read("features.blueprint", columns=["training_run_id", "element_id", "timestamp_ns"])
    found = runs_without_sheet(nodes, tables.read("urabrask.bsds", columns=["blueprint_id", "issued_at_ns"]))
    return check_result(
        [Problem(name, f"{name} has no sheet in {counted_runs(runs)}", _SYSTEM, runs) for name, runs in found.items()],
        "every blueprint of a graph has a sheet",
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"blueprints": len(found)},
    )


@dg.asset_check(
    asset=SHEETS, additional_deps=[key_of("urabrask.bsds_failure")], description="No sheet failed since the newest one came."
)
def bsds_failed(settings: ResourceParam[Settings], tables: ResourceParam[TableStore]) -> dg.AssetCheckResult:
    """WARN with the blueprints of which a BSDSFailed arrived after the newest sheet, and its reason."""
    from gnn.coverage.sheets import failed_since_sheet

    failures = tables.read("urabrask.bsds_failure", columns=["blueprint_id", "arrival", "reason"])
    found: dict[str, str] = {}
    if failures.num_rows:
        entries = [entry for entry in Ledger(settings.home).entries() if entry.event == "arrived"]
        sheets = tables.read("urabrask.bsds", columns=["blueprint_id", "export_digest"])
        found = failed_since_sheet(failures, sheets, {entry.digest: entry.scan for entry in entries})
    return check_result(
        [Problem(name, f"{name}: no sheet could be made: {reason}", _SYSTEM) for name, reason in found.items()],
        "no sheet failed since the newest one of its blueprint",
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"blueprints": len(found)},
    )


SHEET_CHECKS: Final = (bsds_missing, bsds_failed)
