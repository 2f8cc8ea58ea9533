"""Upkeep by the clock: tables are compacted and vacuumed each night, never a version that a build has pinned."""

import dagster as dg

from tamiyo_assets.resources.tables import TableStore
from tamiyo_assets.writes import WRITES_TAGS


@dg.op(description="Merge small files, delete those that no kept version needs, show the views what is left.")
def compact_and_vacuum(context: dg.OpExecutionContext, tables: dg.ResourceParam[TableStore]) -> None:
    """Maintain every table; what was done is in the log."""
    from tamiyo_assets.maintenance import maintain
    from tamiyo_assets.warehouse import WAREHOUSE, publish

    done = maintain(tables)
    for one in done:
        context.log.info(f"{one.name}: {one.merged} files merged, {one.deleted} deleted, versions {one.pinned} pinned")
    if done and (tables.home / WAREHOUSE).exists():
        publish(tables.home, tables)


@dg.job(
    name="maintain_tables",
    tags=dict(WRITES_TAGS),
    description="Compaction and vacuum of the tables; 7 days and every pinned version are kept.",
)
def maintenance_job() -> None:
    """One op."""
    compact_and_vacuum()
