"""Gather what each upstream system sent and when, from the ledger of arrivals and the contract tables."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import pyarrow.compute as pc

from lake.accounting import feeds as tables_of
from lake.exports.ledger import Entry, Ledger, present
from lake.rejects import rejects_by_reason
from lake.store.table_store import TableStore
from schemas.contracts import FOLDERS, TABLES
from schemas.contracts.table import Table
from tamiyo_assets.panel.facts import Feed, FeedState, Rejected
from tamiyo_assets.panel.of_coverage import time_of

SYSTEMS: Final = tuple(sorted({folder.system for folder in FOLDERS.values()}))
_DAY: Final = timedelta(days=1)
_SENDERS: Final = {
    reject: folder.system
    for folder in FOLDERS.values()
    for reject in (folder.reject_table, *(folder.reject_table_of(name) for name in tables_of(folder) if folder.tables))
}


def rejects_of(tables: TableStore) -> tuple[Rejected, ...]:
    """Return rejected records by table and reason, most first, with the system that sent them."""
    return tuple(
        Rejected(_SENDERS.get(found.table, found.table.partition(".")[2].partition("_")[0]), **found.model_dump())
        for found in rejects_by_reason(tables)
    )


def feeds_of(
    tables: TableStore, rejects: Iterable[Rejected], now: datetime, window: timedelta, *, is_sample: bool
) -> tuple[Feed, ...]:
    """Return one feed per system. Silent: nothing new for longer than `window`. Never seen: unknown, not silent."""
    entries = Ledger(tables.home).entries()
    here: dict[str, int] = {}
    for folder, _ in present(entries, FOLDERS):
        system = FOLDERS[folder].system
        here[system] = here.get(system, 0) + 1
    refused: dict[str, int] = {}
    for found in rejects:
        refused[found.system] = refused.get(found.system, 0) + found.records
    return tuple(
        _feed(tables, system, entries, here.get(system, 0), refused.get(system, 0), (now, window, is_sample))
        for system in SYSTEMS
    )


def _feed(
    tables: TableStore,
    system: str,
    entries: Iterable[Entry],
    exports: int,
    rejected: int,
    judged: tuple[datetime, timedelta, bool],
) -> Feed:
    now, window, is_sample = judged
    own = [e for e in entries if e.event == "arrived" and e.folder.partition("/")[0] == system]
    times = [datetime.fromisoformat(entry.at) for entry in own]
    last = max(times, default=None)
    state: FeedState = "unknown"
    if last is not None:
        state = "sample" if is_sample else "silent" if now - last > window else "current"
    names = sorted(name for name, table in TABLES.items() if table.system == system)
    return Feed(
        system=system,
        state=state,
        last_seen=last,
        exports=exports,
        exports_last_day=sum(now - time <= _DAY for time in times),
        rows=sum(tables.count(name) for name in names),
        newest_record=_newest(tables, [TABLES[name] for name in names]),
        rejected=rejected,
    )


def _newest(tables: TableStore, contracts: Iterable[Table]) -> datetime | None:
    """Return the event time of the newest row of some contract tables."""
    times = []
    for table in contracts:
        if table.event_time and tables.exists(table.name):
            newest = pc.max(tables.read(table.name, columns=[table.event_time]).column(0)).as_py()
            times += [] if newest is None else [newest]
    return time_of(max(times)) if times else None
