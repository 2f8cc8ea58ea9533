"""Define schedules: what runs by the clock, with the settings of the moment in which it begins."""

from typing import Final

import dagster as dg
from dagster import ResourceParam

from lake.settings import Settings, is_empty
from lake.writes import run_tags
from tamiyo_assets.jobs import rebuild_job
from tamiyo_assets.upkeep import maintenance_job


@dg.schedule(
    name="registry_refresh_schedule",
    job=rebuild_job,
    cron_schedule="0 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Scan the exports and rebuild each night, so that the registries adopt keys that no sensor has seen arrive.",
)
def registry_refresh_schedule(settings: ResourceParam[Settings]) -> dg.RunRequest | dg.SkipReason:
    """Request a run of `rebuild`, also with nothing pending. Without exports it would fail, which sensors alert already."""
    if is_empty(settings.exports):
        return dg.SkipReason(f"exports root {settings.exports}: expected files <system>/<contract>/<file>, found none.")
    return dg.RunRequest(tags=run_tags(settings.home, settings.exports))


@dg.schedule(
    name="maintenance_schedule",
    job=maintenance_job,
    cron_schedule="0 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Compact and vacuum the tables and prune the runs each night, after the registries were refreshed.",
)
def maintenance_schedule(settings: ResourceParam[Settings]) -> dg.RunRequest:
    """Request a run of `maintain_tables`."""
    return dg.RunRequest(tags=run_tags(settings.home, settings.exports))


SCHEDULES: Final = (registry_refresh_schedule, maintenance_schedule)
