"""Ingest the contract tables: what the upstream systems sent, with nothing derived."""

import hashlib
import time
from collections.abc import Iterator
from typing import Final

import dagster as dg
from dagster import ResourceParam

from lake.accounting import feeds, tally
from lake.exports.ledger import Ledger, present
from lake.ingest.ingest import Ingest, Progress
from lake.rejects import refused_exports
from lake.retirement import TABLE, Retirements
from lake.settings import SAMPLE, Settings, require_exports
from lake.store.versions import Versions
from schemas.contracts import FOLDERS, TABLES
from schemas.contracts.table import Table
from tamiyo_assets.assets.feeds import report_feeds
from tamiyo_assets.assets.problems import Problem
from tamiyo_assets.assets.reports import COLUMNS, Reporter, contract_columns, derived_columns, key_of, kinds_of, schema_specs

EXPORTS: Final = dg.AssetKey(["operations", "exports"])
RETIRED: Final = key_of(TABLE)
_SECONDS_BETWEEN_LINES: Final = 5.0


@dg.asset(
    key=EXPORTS,
    group_name="upstream",
    kinds=kinds_of(EXPORTS, "file"),
    owners=["team:tamiyo"],
    description="The scan of the exports root: what is new is decoded into the contract tables, once per file and table.",
)
def exports(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    ingest: ResourceParam[Ingest],
    versions: ResourceParam[Versions],
) -> dg.MaterializeResult[None]:
    """Ingest what is new."""
    require_exports(settings)
    report = ingest.refresh(progress=_logged(context))
    for file, why in report.failed.items():
        context.log.warning(f"{file}: not read: {why}; the next ingest tries it again")
    for problem in report.rebuilt.values():
        context.log.warning(problem)
    entries = Ledger(ingest.home).entries()
    if settings.exports != SAMPLE:
        report_feeds(context.instance, entries, settings.freshness)
    arrived = present(entries, FOLDERS)
    contents = "\n".join(sorted(f"{folder} {digest}" for folder, digest in arrived))
    return Reporter(context, versions).asset(
        EXPORTS,
        hashlib.sha256(contents.encode()).hexdigest(),
        {
            "exports": len(arrived),
            "new_exports": sum(report.exports.values()),
            "new_exports_by_folder": dg.MetadataValue.json(report.exports),
            "unknown_fields": dg.MetadataValue.json(report.unknown_fields),
            "unplaced": dg.MetadataValue.json({file.file: file.reason for file in report.unplaced}),
            "vanished": dg.MetadataValue.json(report.vanished),
            "failed": dg.MetadataValue.json(report.failed),
            "rebuilt": dg.MetadataValue.json(report.rebuilt),
            "suspicious_times": dg.MetadataValue.json(report.suspicious),
            "training_runs": len(ingest.run_ids()),
        },
    )


def _logged(context: dg.AssetExecutionContext) -> Progress:
    """Return a callback that logs the progress of an ingest, at most one line every few seconds."""
    said = time.monotonic()

    def progress(file: str, done: int, count: int) -> None:
        nonlocal said
        if time.monotonic() - said >= _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            context.log.info(f"{done} of {count} exports read, {file} was the last")

    return progress


def folders_of(table: Table) -> list[str]:
    """Return folders of the exports root whose files can hold rows of the table."""
    return [path for path, folder in FOLDERS.items() if table.name in feeds(folder)]


@dg.multi_asset(
    name="contract_tables",
    specs=[
        dg.AssetSpec(
            key_of(table.name),
            deps=[EXPORTS],
            skippable=True,
            group_name="upstream",
            description=table.description,
            kinds=kinds_of(key_of(table.name), "deltalake"),
            owners=[f"team:{table.system}"],
            metadata={COLUMNS: contract_columns(table), "key": ", ".join(table.key), "folders": ", ".join(folders_of(table))},
        )
        for table in TABLES.values()
    ],
    check_specs=schema_specs(TABLES),
    can_subset=True,
)
def contract_tables(
    context: dg.AssetExecutionContext, ingest: ResourceParam[Ingest], versions: ResourceParam[Versions]
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Report each table; one that is materialized without the scan of all exports refreshes its own folders.

    If a table's schema refuses rows, their whole export goes to the rejects, and the check `schema` fails for as long as that
    export is there. The tables hold everything else that arrived, so the step goes on.
    """
    selected = [table for table in TABLES.values() if key_of(table.name) in context.selected_asset_keys]
    in_run = context.run.asset_selection
    if in_run is not None and EXPORTS not in in_run:
        ingest.refresh({folder for table in selected for folder in folders_of(table)})
    reporter = Reporter(context, versions)
    refused = refused_exports(ingest.home, ingest.tables)
    for table in selected:
        said = tally(ingest.tables, table.name)
        yield reporter.table(
            versions.of(table.name),
            {"rows_read": said.rows_read, "duplicates": said.duplicates, "rejected": said.rejected},
        )
        problems = [Problem(file, f"{file}: {why}", (table.system,)) for file, why in refused.get(table.name, {}).items()]
        yield from reporter.schema(table.name, problems)


@dg.asset(
    key=RETIRED,
    group_name="upstream",
    kinds=kinds_of(RETIRED, "deltalake"),
    owners=["team:tamiyo"],
    metadata={COLUMNS: derived_columns(TABLE)},
    check_specs=schema_specs([TABLE]),
    description="Training runs that `tamiyo retire` took out of all that is derived; their contract rows stay.",
)
def retired(
    context: dg.AssetExecutionContext, settings: ResourceParam[Settings], versions: ResourceParam[Versions]
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Publish what stands in the journal of retirements."""
    yield from Reporter(context, versions).written(TABLE, Retirements(settings.home).rows())


UPSTREAM = (exports, contract_tables, retired)
