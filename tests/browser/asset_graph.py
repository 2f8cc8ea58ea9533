"""The asset graph as a person sees it, in Debian's Chromium. As a script: ADDRESS FILE.png, for the picture in the README."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CHROMIUM = ("chromium", "chromium-browser")  # names on PATH
_WIDTH, _HEIGHT = 1600, 900
GROUPS = ("upstream", "registries", "normalization", "features", "graphs", "model", "bundle", "telemetry")


def chromium() -> str | None:
    """Path of a system Chromium, or None."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


@contextmanager
def page(width: int = _WIDTH, height: int = _HEIGHT) -> Iterator[Page]:
    """An empty page of a headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        try:
            yield browser.new_page(viewport={"width": width, "height": height})
        finally:
            browser.close()


def open_graph(found: Page, address: str) -> None:
    """Show the whole asset graph with every group; waits for text, since the UI keeps its connections open."""
    found.goto(f"{address}/asset-groups", wait_until="domcontentloaded")
    for group in GROUPS:
        found.get_by_text(group, exact=True).first.wait_for(timeout=90_000)
    found.wait_for_timeout(3_000)


if __name__ == "__main__":
    with page() as shown:
        open_graph(shown, sys.argv[1])
        shown.screenshot(path=Path(sys.argv[2]))
