"""Resolve the resources of one run or sensor tick: all of one home and one exports root.

A run that a sensor or schedule asked for names both in its tags; every other run and tick resolves them when it begins. A run
holds the lock of its home for as long as its resources live, a tick does not.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import dagster as dg

from lake.alert_outbox import AlertOutbox
from lake.durable.locks import alive
from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.settings import Settings, note_origin, require_home, resolve
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from lake.writes import EXPORTS, HOME, bucket_in, bucket_tags, hold_writes, process_tags, run_tags
from schemas.derived.tables import DERIVED

# what reads or writes the home of a run waits for the run's turn
_TURN: Final = frozenset({"settings", "turn"})


def run_resources(fixed: Settings | None = None) -> dict[str, dg.ResourceDefinition]:
    """Return the resources by name, with the settings `fixed`, or else with those that each run resolves."""

    @dg.resource(description="Where things are and how strict the checks are.")
    def settings(context: dg.InitResourceContext) -> Settings:
        return fixed or _settings(context)

    @dg.resource(required_resource_keys={"settings"}, description="The right to write to the home, held during a run.")
    def turn(context: dg.InitResourceContext) -> Iterator[None]:
        yield from _turn(context, context.resources.settings)

    # a code server's ticks share the digests of files, so that none is hashed at every tick
    opened = lru_cache(maxsize=8)(Exports)

    def made(make: Callable[[Any], object], *others: str) -> dg.ResourceDefinition:
        return dg.ResourceDefinition(lambda context: make(context.resources), required_resource_keys={*_TURN, *others})

    return {
        "settings": settings,
        "turn": turn,
        "tables": made(lambda have: TableStore(have.settings.home, DERIVED)),
        "exports": made(lambda have: opened(have.settings.exports, have.settings.exports_are_sample)),
        "ingest": made(
            lambda have: Ingest(have.settings.home, have.exports, have.tables, have.settings.limits), "exports", "tables"
        ),
        "versions": made(lambda have: Versions(have.settings.home, have.tables), "tables"),
        "alerts": made(lambda have: AlertOutbox(have.settings.home, have.settings.alert_webhook, have.settings.ui_url)),
    }


def _settings(context: dg.InitResourceContext) -> Settings:
    tags = context.run.tags if context.run is not None else {}
    exports, home = tags.get(EXPORTS), tags.get(HOME)
    return resolve(exports=Path(exports) if exports else None, home=Path(home) if home else None)


def _turn(context: dg.InitResourceContext, settings: Settings) -> Iterator[None]:
    """Tag the run with its home and process, then hold the lock of what it writes to until the run ends."""
    run, instance, log = context.run, context.instance, context.log
    if run is None or instance is None or log is None:
        yield None
        return
    require_home(settings)
    bucket = bucket_in(run.tags)
    written = {} if bucket is None else bucket_tags(bucket)
    with alive(run.run_id):
        instance.add_run_tags(run.run_id, run_tags(settings.home, settings.exports) | written | process_tags(run.run_id))
        with hold_writes(settings.home, f"run {run.run_id[:8]} of {run.job_name}", log.info, bucket=bucket):
            if bucket is None:
                note_origin(settings)
            yield None
