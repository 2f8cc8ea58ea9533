"""The instance of a fresh home: what `dagster.yaml` says is what Dagster reads."""

from pathlib import Path

from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus

from tamiyo_assets.instance import open_instance


def test_every_kind_of_tick_is_deleted_some_day(tmp_path: Path) -> None:
    with open_instance(tmp_path) as instance:
        for kind in (InstigatorType.SENSOR, InstigatorType.SCHEDULE):
            days = instance.get_tick_retention_settings(kind)
            assert set(days) == set(TickStatus) and all(0 < kept <= 90 for kept in days.values())
            assert days[TickStatus.SKIPPED] <= days[TickStatus.SUCCESS] <= days[TickStatus.FAILURE]
        assert instance.get_tick_retention_settings(InstigatorType.SENSOR)[TickStatus.SKIPPED] == 1
