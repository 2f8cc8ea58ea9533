"""Define one external asset per upstream system, fresh for as long as that system sends something new."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg

from lake.exports.feeds import SYSTEMS, feeds
from lake.exports.ledger import Entry
from lake.settings import freshness_window
from tamiyo_assets.assets.reports import kinds_of

FEED: Final = "feeds"
_SEQ: Final = "seq"


def feed_key(system: str) -> dg.AssetKey:
    """Return the asset key of a system's feed."""
    return dg.AssetKey([FEED, system])


FEEDS: Final = [
    dg.AssetSpec(
        feed_key(system),
        group_name="upstream",
        kinds=kinds_of(feed_key(system), "file"),
        owners=[f"team:{system}"],
        description=f"New bytes from {system}; stale if none came within TAMIYO_FRESHNESS_HOURS (36).",
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=freshness_window()),
    )
    for system in SYSTEMS
]


def report_feeds(
    instance: dg.DagsterInstance, entries: Iterable[Entry], window: timedelta, now: datetime | None = None
) -> None:
    """Report each feed whose newest export was not reported before.

    An export that arrived longer ago than the window is not reported: Dagster would take the time of the report as its time,
    and a silent feed would look fresh in a new instance.
    """
    found = feeds(entries)
    records = instance.get_asset_records([feed_key(system) for system in found])
    events = {record.asset_entry.asset_key: record.asset_entry.last_materialization for record in records}
    reported = {
        key: event.asset_materialization.metadata[_SEQ].value
        for key, event in events.items()
        if event is not None and event.asset_materialization is not None
    }
    for system, feed in found.items():
        if reported.get(feed_key(system)) != feed.seq and (now or datetime.now(UTC)) - feed.at <= window:
            metadata: dict[str, int | str] = {_SEQ: feed.seq, "file": feed.file}
            instance.report_runless_asset_event(dg.AssetMaterialization(feed_key(system), metadata=metadata))
