"""Publish the panel and the metrics of a home."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from lake.durable.publish import lock, publish_file, sweep
from tamiyo_assets.panel.facts import PanelData
from tamiyo_assets.panel.metrics import METRICS, text
from tamiyo_assets.panel.render import PANEL, render

LOCK: Final = ".panel.lock"
# what differs from run to run although nothing of the home has changed
_OF_THE_MOMENT: Final = frozenset({"made_at", "stages", "rebuilds", "history", "checks", "alerts"})


def publish_panel(home: Path, data: PanelData) -> None:
    """Write `panel.html` and `metrics.prom` into a home."""
    page, metrics = render(data).encode("utf-8"), text(data)
    with lock(home / LOCK):
        sweep(home, PANEL)
        sweep(home, METRICS)
        publish_file(panel_path(home), page)
        publish_file(home / METRICS, metrics)


def panel_path(home: Path) -> Path:
    """Return the path of the page of a home."""
    return home / PANEL


def digest_of(data: PanelData) -> str:
    """Return the digest of what the panel says of the home, whenever and in whichever run it was written."""
    content = {name: value for name, value in asdict(data).items() if name not in _OF_THE_MOMENT}
    content["feeds"] = [{**feed, "exports_last_day": 0, "state": ""} for feed in content["feeds"]]
    content["failed"] = sorted((check.asset, check.check) for check in data.checks if not check.passed)
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: Any) -> str:
    return str(value)
