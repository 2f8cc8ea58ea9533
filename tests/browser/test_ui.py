"""The UI in a real browser: the asset graph shows every group, without a dialog in the way."""

from pathlib import Path

import pytest

from tests.browser.asset_graph import CHROMIUM, open_graph, page
from tests.browser.webserver import Webserver
from tests.components import program

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def browser() -> str:
    """A system Chromium; looked for before the webserver starts."""
    return program(*CHROMIUM, purpose="a look at the UI")


@pytest.mark.usefixtures("browser")
def test_the_asset_graph_shows_every_group(webserver: Webserver, tmp_path: Path) -> None:
    with page() as shown:
        open_graph(shown, webserver.address)
        assert shown.get_by_role("dialog").count() == 0
        shown.screenshot(path=tmp_path / "graph.png")
    assert (tmp_path / "graph.png").stat().st_size > 10_000
