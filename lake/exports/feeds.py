"""Report from the ledger of arrivals what each upstream system last sent, and which systems have fallen silent.

Bytes that arrived before (a copy, a rename, a return) are not new. A system that never sent anything is unknown, not silent.
A home of the committed sample has no feeds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lake.exports.ledger import Entry
from schemas.contracts import FOLDERS

SYSTEMS: Final = tuple(sorted({folder.system for folder in FOLDERS.values()}))


@dataclass(frozen=True)
class Feed:
    """The newest export of one system whose bytes were new: its `seq` in the ledger, its file, and when it arrived."""

    system: str
    seq: int
    file: str
    at: datetime


def feeds(entries: Iterable[Entry]) -> dict[str, Feed]:
    """Return, by system, the feed of each system that ever sent an export."""
    known: set[tuple[str, str]] = set()
    found: dict[str, Feed] = {}
    for entry in entries:
        export = (entry.folder, entry.identity)
        if entry.event != "arrived" or entry.folder not in FOLDERS or export in known:
            continue
        known.add(export)
        system = FOLDERS[entry.folder].system
        found[system] = Feed(system, entry.seq, entry.file, datetime.fromisoformat(entry.at))
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class SilentFeed:
    """A system that has sent exports, but nothing new for longer than the window."""

    system: str
    last: datetime
    silence: timedelta
    window: timedelta

    @property
    def text(self) -> str:
        """One line for people."""
        return (
            f"{self.system}: expected a new export at least every {_hours(self.window)} h, found none since "
            f"{self.last.isoformat(timespec='minutes')} ({_hours(self.silence)} h ago); ask {self.system} whether it exports"
        )


def silent_feeds(entries: Iterable[Entry], window: timedelta, now: datetime) -> list[SilentFeed]:
    """Return the feeds that are silent past the window at `now` (UTC), longest silence first."""
    found = [SilentFeed(feed.system, feed.at, now - feed.at, window) for feed in feeds(entries).values()]
    return sorted((feed for feed in found if feed.silence > window), key=lambda feed: (feed.last, feed.system))


def _hours(span: timedelta) -> str:
    return f"{span / timedelta(hours=1):.1f}".removesuffix(".0")
