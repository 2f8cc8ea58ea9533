"""Which upstream systems have fallen silent, from the ledger of arrivals."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from lake.exports.feeds import SYSTEMS, feeds, silent_feeds
from lake.exports.ledger import Entry

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(hours=24)
FOLDERS = {"urza": "urza/blueprint", "tolaria": "tolaria/system_state", "tamiyo": "tamiyo/command"}


def arrivals(*events: tuple[int, str, str]) -> list[Entry]:
    """Events (hour, system, content); a content that starts with - is gone."""
    return [
        Entry(
            seq=number,
            scan=number,
            event="gone" if content.startswith("-") else "arrived",
            digest=content.removeprefix("-"),
            folder=FOLDERS.get(system, system),
            file=f"{system}/{content}.ndjson",
            size=1,
            at=(START + timedelta(hours=hour)).isoformat(timespec="seconds"),
        )
        for number, (hour, system, content) in enumerate(events, start=1)
    ]


def test_there_are_nine_systems() -> None:
    names = "tolaria kasmina urza urabrask simic tezzeret weatherlight tamiyo oona"
    assert set(SYSTEMS) == set(names.split())


def test_a_feed_is_the_newest_arrival_of_bytes_that_were_never_there_before() -> None:
    found = feeds(arrivals((0, "urza", "a"), (5, "urza", "b"), (6, "urza", "-a"), (9, "urza", "a"), (10, "tolaria", "a")))
    assert [(one.system, one.seq, one.at) for one in found.values()] == [
        ("tolaria", 5, START + timedelta(hours=10)),
        ("urza", 2, START + timedelta(hours=5)),
    ]
    assert feeds([]) == {}
    assert feeds(arrivals((0, "elsewhere/nobody", "a"))) == {}


def test_only_a_feed_that_was_seen_and_is_past_its_window_is_silent_the_longest_first() -> None:
    entries = arrivals((0, "urza", "a"), (2, "tolaria", "a"), (30, "tamiyo", "a"))
    assert silent_feeds(entries, DAY, START + DAY) == []
    just_past = silent_feeds(entries, DAY, START + DAY + timedelta(seconds=1))
    assert [one.system for one in just_past] == ["urza"]
    both = silent_feeds(entries, DAY, START + timedelta(hours=40))
    assert [one.system for one in both] == ["urza", "tolaria"]
    assert both[1].text == (
        "tolaria: expected a new export at least every 24 h, found none since 2026-01-01T02:00+00:00 (38 h ago); "
        "ask tolaria whether it exports"
    )
    again = [*entries, *arrivals((39, "urza", "new"))]
    assert [one.system for one in silent_feeds(again, DAY, START + timedelta(hours=40))] == ["tolaria"]
    assert silent_feeds([], DAY, START + 99 * DAY) == []


def test_a_clock_that_was_set_back_makes_nothing_silent(tmp_path: Path) -> None:
    assert silent_feeds(arrivals((50, "urza", "a")), DAY, START) == []
