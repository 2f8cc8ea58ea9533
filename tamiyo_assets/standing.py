"""Find standing problems: what is wrong for as long as it lasts, though no check of a run says so."""

from datetime import datetime

from lake import quarantine
from lake.alert_outbox import AlertOutbox
from lake.alerts.book import Evaluation, Problem
from lake.exports.feeds import SYSTEMS, silent_feeds
from lake.exports.ledger import Ledger
from lake.settings import Settings, has_own_exports, vanished_exports
from tamiyo_assets.assets.feeds import feed_key
from tamiyo_assets.assets.upstream import EXPORTS

EXPORTS_ROOT, FRESHNESS = "exports_root", "freshness"


def report_standing(settings: Settings, alerts: AlertOutbox, now: datetime | None = None) -> int:
    """Report what holds now: an exports root that vanished, messages of Oona that are refused (ERROR), silent feeds (WARN).

    In the sample's home no exports count as missing. Returns how many alerts were opened or resolved.
    """
    at = now or alerts.clock()
    vanished = vanished_exports(settings)
    problems = () if vanished is None else (Problem(EXPORTS_ROOT, vanished),)
    found = [Evaluation(EXPORTS.to_user_string(), EXPORTS_ROOT, at, problems, standing=True)]
    found.append(quarantine.look(settings.home, at))
    entries = Ledger(settings.home).entries() if has_own_exports(settings.home) else []
    silent = {feed.system: Problem("silent", feed.text, feed.system) for feed in silent_feeds(entries, settings.freshness, at)}
    for system in SYSTEMS:
        problems = (silent[system],) if system in silent else ()
        found.append(Evaluation(feed_key(system).to_user_string(), FRESHNESS, at, problems, "WARN", standing=True))
    return alerts.observe(found)
