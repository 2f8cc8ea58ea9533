"""Schedules: what runs by the clock."""

import dagster as dg

from tamiyo_assets.jobs import registries_job

registry_refresh_schedule = dg.ScheduleDefinition(
    name="registry_refresh_schedule",
    job=registries_job,
    cron_schedule="0 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Refresh every registry each night, so that keys of late exports and of new Simic snapshots are adopted.",
)
