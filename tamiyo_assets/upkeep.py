"""Define the nightly upkeep: compact and vacuum tables, and delete old runs.

No table version that a build has pinned is vacuumed. Runs that ended more than 30 days ago are deleted, unless the UI still
shows one of their events as the newest.
"""

from dataclasses import asdict

import dagster as dg

from lake.store.table_store import TableStore
from lake.writes import WRITES_TAGS


@dg.op(description="Merge small files, delete those that no kept version needs, show the views what is left.")
def compact_and_vacuum(context: dg.OpExecutionContext, tables: dg.ResourceParam[TableStore]) -> None:
    """Maintain every table; what was done is in the log. Fails at its end if a table can't be read."""
    from lake.upkeep import maintain
    from lake.warehouse import WAREHOUSE, publish

    done = maintain(tables)
    for one in done:
        context.log.info(f"{one.name}: {one.merged} files merged, {one.deleted} deleted, versions {one.pinned} pinned")
    problems = [one.problem for one in done if one.problem is not None]
    if len(done) > len(problems) and (tables.home / WAREHOUSE).exists():
        publish(tables.home, tables)
    if problems:
        raise dg.Failure("; ".join(problems), allow_retries=False)


@dg.op(description="Delete old finished runs (30 days, 300 runs), but none with the newest event of an asset or check.")
def prune_runs(context: dg.OpExecutionContext) -> None:
    """Prune the instance; the counts are in the log and in the output's metadata."""
    from tamiyo_assets.retention import DAYS, MOST, prune

    done = prune(context.instance)
    context.log.info(
        f"{done.runs} runs (older than {DAYS} days, or beyond {MOST}) and {done.events} superseded events outside of runs "
        f"deleted, {done.kept} runs kept, {done.freed_bytes} bytes given back"
    )
    context.add_output_metadata(asdict(done))


@dg.job(
    name="maintain_tables",
    tags=dict(WRITES_TAGS),
    description="Compaction and vacuum of tables (7 days and pinned versions are kept), retention of runs (30 days, 300 runs).",
)
def maintenance_job() -> None:
    """Run two ops that do not wait for each other: if one fails, the other goes on."""
    compact_and_vacuum()
    prune_runs()
