"""Contract tables: what the upstream systems sent. Nothing is derived here; decoding is in `schemas`, storing in `ingest`."""

import hashlib

import dagster as dg
from dagster import ResourceParam

from schemas.contracts import FOLDERS, TABLES
from schemas.contracts.table import Table
from tamiyo_assets.accounting import feeds, tally
from tamiyo_assets.assets.reports import COLUMNS, contract_columns, key_of, materialized
from tamiyo_assets.ingest import Ingest
from tamiyo_assets.jobs import EXPORTS
from tamiyo_assets.ledger import Ledger, present
from tamiyo_assets.partitions import SINGLE_RUN, TRAINING_RUNS, training_runs
from tamiyo_assets.versions import Versions

PARTITIONED = ("tolaria.system_state", "kasmina.seed_state")


@dg.asset(
    key=EXPORTS,
    group_name="upstream",
    kinds={"file"},
    owners=["team:tamiyo"],
    description="The scan of the exports root: what is new is decoded into the contract tables, once per file and table.",
)
def exports(context: dg.AssetExecutionContext, ingest: ResourceParam[Ingest]) -> dg.MaterializeResult[None]:
    """Ingest what is new and register every training run as a partition."""
    report = ingest.refresh()
    runs = ingest.run_ids()
    context.instance.add_dynamic_partitions(TRAINING_RUNS, runs)
    arrived = present(Ledger(ingest.home).entries(), FOLDERS)
    contents = "\n".join(sorted(f"{folder} {digest}" for folder, digest in arrived))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(hashlib.sha256(contents.encode()).hexdigest()),
        metadata={
            "exports": len(arrived),
            "new_exports": sum(report.exports.values()),
            "new_exports_by_folder": dg.MetadataValue.json(report.exports),
            "unknown_fields": dg.MetadataValue.json(report.unknown_fields),
            "unplaced": dg.MetadataValue.json({file.file: file.reason for file in report.unplaced}),
            "vanished": dg.MetadataValue.json(report.vanished),
            "training_runs": len(runs),
        },
    )


def folders_of(table: Table) -> list[str]:
    """Folders of the exports root whose files can hold rows of the table."""
    return [path for path, folder in FOLDERS.items() if table.name in feeds(folder)]


def table_asset(table: Table) -> dg.AssetsDefinition:
    """The asset of one contract table: it refreshes its own folders (nothing where nothing is new) and reports the table."""
    partitioned = table.name in PARTITIONED

    @dg.asset(
        key=key_of(table.name),
        group_name="upstream",
        deps=[EXPORTS],
        description=table.description,
        kinds={"deltalake"},
        owners=[f"team:{table.system}"],
        metadata={COLUMNS: contract_columns(table), "key": ", ".join(table.key), "folders": ", ".join(folders_of(table))},
        partitions_def=training_runs if partitioned else None,
        backfill_policy=SINGLE_RUN if partitioned else None,
    )
    def contract_table(
        context: dg.AssetExecutionContext, ingest: ResourceParam[Ingest], versions: ResourceParam[Versions]
    ) -> dg.MaterializeResult[None]:
        ingest.refresh(folders_of(table))
        said = tally(ingest.tables, table.name)
        return materialized(
            context,
            key_of(table.name),
            versions.of(table.name),
            {"rows_read": said.rows_read, "duplicates": said.duplicates, "rejected": said.rejected},
        )

    return contract_table


UPSTREAM = (exports, *(table_asset(table) for table in TABLES.values()))
