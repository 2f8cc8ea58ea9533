"""Standing problems: what is wrong for as long as it lasts, though no check of a run says so."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from lake.exports.feeds import silent_feeds
from lake.exports.ledger import Ledger
from lake.settings import Settings, has_own_exports, vanished_exports
from tamiyo_assets.assets.feeds import feed_key
from tamiyo_assets.assets.upstream import EXPORTS


@dataclass(frozen=True)
class StandingProblem:
    """One problem: asset, check and `problem` identify it for as long as it lasts; `severity` is WARN or ERROR."""

    asset: str
    check: str
    problem: str
    severity: str
    text: str


def standing_problems(settings: Settings, now: datetime | None = None) -> Iterator[StandingProblem]:
    """Yield every problem of this moment: an exports root that vanished, feeds that fell silent. None of the sample's home."""
    vanished = vanished_exports(settings)
    if vanished is not None:
        yield StandingProblem(EXPORTS.to_user_string(), "exports_root", "vanished", "ERROR", vanished)
    if not has_own_exports(settings.home):
        return
    for feed in silent_feeds(Ledger(settings.home).entries(), settings.freshness, now or datetime.now(UTC)):
        yield StandingProblem(feed_key(feed.system).to_user_string(), "freshness", "silent", "WARN", feed.text)
