"""Queue and deliver alerts while runs go on: a sensor over checks, runs, sensors and schedules."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import dagster as dg
from dagster import ResourceParam
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorState, TickStatus

from lake.alert_outbox import AlertOutbox
from lake.alerts.book import Evaluation, Problem
from lake.alerts.transitions import overdue
from lake.settings import Settings
from tamiyo_assets.alerts.event_log import between, newest_event
from tamiyo_assets.standing import report_standing

_INTERVAL_SECONDS: Final = 10
_FOLLOWED_FOR: Final = timedelta(days=7)
_ENDED: Final = (TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.FAILURE)
_KINDS: Final = {InstigatorType.SENSOR: "sensors", InstigatorType.SCHEDULE: "schedules"}


@dataclass(frozen=True)
class _Cursor:
    """The last event that was seen (None before the first tick), and when each other home last had a run."""

    event: int | None = None
    homes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> "_Cursor":
        return cls(**json.loads(text)) if text else cls()

    def dump(self) -> str:
        return json.dumps(asdict(self))


@dg.sensor(
    name="alert_delivery_sensor",
    minimum_interval_seconds=_INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Queues alerts of checks while runs go on, of failed runs and sensors; delivers and retries by the clock.",
)
def alert_delivery_sensor(
    context: dg.SensorEvaluationContext, settings: ResourceParam[Settings], alerts: ResourceParam[AlertOutbox]
) -> dg.SensorResult:
    """Look at new events, at the newest tick of each sensor and schedule and at the feeds, then post what is due."""
    cursor = _Cursor.parse(context.cursor)
    last = newest_event(context.instance)
    # smaller ids than before belong to another event log, or to one that was wiped
    after = cursor.event if cursor.event is not None and cursor.event <= last else None
    found = between(context.instance, after, last, alerts.home)
    changed = sum(alerts.of(home).observe(evaluations) for home, evaluations in found.items())
    changed += alerts.observe(_ticks(context.instance)) + report_standing(settings, alerts)
    now = alerts.clock()
    seen = {home: at for home, at in cursor.homes.items() if _is_followed(alerts.of(Path(home)), at, now)}
    homes = {**seen, **{str(home): now.isoformat() for home in found if home != alerts.home}}
    said = [f"{changed} alerts opened or resolved.", *_deliver([alerts, *(alerts.of(Path(home)) for home in sorted(homes))])]
    for line in said[1:]:
        context.log.warning(line)
    return dg.SensorResult(skip_reason=" ".join(said), cursor=_Cursor(last, homes).dump())


def _is_followed(outbox: AlertOutbox, seen: str, now: datetime) -> bool:
    """Return whether alerts of another home are still followed: it had a run lately, or has messages to deliver."""
    if not outbox.home.is_dir():
        return False
    return now - datetime.fromisoformat(seen) < _FOLLOWED_FOR or bool(outbox.read().undelivered())


def _deliver(outboxes: Sequence[AlertOutbox]) -> Iterator[str]:
    """Deliver what is due; yield a sentence for each home whose messages have waited for long or whose webhook fails."""
    for outbox in outboxes:
        delivery = outbox.deliver()
        late = len(overdue(outbox.read(), outbox.clock())) if delivery.pending else 0
        if late and outbox.webhook is None:
            yield f"{outbox.home}: {late} messages wait for a webhook: set TAMIYO_ALERT_WEBHOOK."
        elif late or delivery.fault is not None:
            reason = delivery.fault or "the webhook refuses them"
            yield f"{outbox.home}: {delivery.pending} messages wait, {late} for more than an hour: {reason}."
        if delivery.fault is not None:
            return  # the other homes have the same webhook; their turn comes while this one waits to try again


def _ticks(instance: dg.DagsterInstance) -> Iterator[Evaluation]:
    """Yield an evaluation of each sensor and schedule, from its newest finished tick."""
    for state in instance.all_instigator_state():
        if state.instigator_type not in _KINDS:
            continue
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1, statuses=[*_ENDED])
        for tick in ticks:
            error = tick.error if tick.status is TickStatus.FAILURE else None
            while error is not None and error.cause is not None:
                error = error.cause
            name = (error.cls_name if error is not None else None) or "error"
            text = error.message if error is not None else "the tick failed without an error"
            yield Evaluation(
                _KINDS[state.instigator_type],
                state.name,
                datetime.fromtimestamp(tick.timestamp, UTC),
                (Problem(name, text),) if tick.status is TickStatus.FAILURE else (),
                path=_path(state),
                standing=True,
            )


def _path(state: InstigatorState) -> str:
    """Return the path at which the UI shows a sensor or schedule."""
    repository = state.origin.repository_origin
    location, name = repository.code_location_origin.location_name, repository.repository_name
    place = location if name == "__repository__" else f"{name}@{location}"
    return f"/locations/{place}/{_KINDS[state.instigator_type]}/{state.name}"
