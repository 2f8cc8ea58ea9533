"""What Dagster's event log says about a finished run: which asset checks were evaluated, and which of them failed."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from tamiyo_assets.alerts.outbox import Alert

_PAGE = 500


def failed_checks(instance: dg.DagsterInstance, run_id: str) -> list[Alert]:
    """The failed evaluations of a run, WARN and ERROR alike, in the order in which they were made."""
    return [
        Alert(
            run_id=run_id,
            asset=evaluation.asset_key.to_user_string(),
            check=evaluation.check_name,
            severity=evaluation.severity.value,
            description=evaluation.description or "",
            metadata={name: _plain(value) for name, value in evaluation.metadata.items()},
        )
        for evaluation in evaluations(instance, run_id)
        if not evaluation.passed
    ]


def evaluations(instance: dg.DagsterInstance, run_id: str) -> Iterator[dg.AssetCheckEvaluation]:
    """Every evaluation of a run, read a page at a time."""
    cursor: str | None = None
    while True:
        page = instance.get_records_for_run(
            run_id, cursor=cursor, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION, limit=_PAGE
        )
        for record in page.records:
            event = record.event_log_entry.dagster_event
            if event is not None:
                yield event.asset_check_evaluation_data
        if not page.has_more:
            return
        cursor = page.cursor


def _plain(value: dg.MetadataValue[Any]) -> Any:
    """A metadata value as JSON: numbers, text and lists as they are, everything else as text."""
    raw = value.value
    return raw if isinstance(raw, int | float | str | bool | list | dict) or raw is None else str(raw)
