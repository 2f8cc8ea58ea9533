"""The panel in a real browser: on a laptop and a phone, in light and dark, without a network."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from lake.settings import resolve
from tamiyo_assets.panel.gather import gather
from tamiyo_assets.panel.render import render
from tests.browser.asset_graph import ARGUMENTS, CHROMIUM, chromium
from tests.components import program
from tests.tamiyo_assets.facts import bad_facts

pytestmark = pytest.mark.browser

_CONTRASTS = """
() => {
  const light = colour => {
    const shares = colour.match(/[0-9.]+/g).map(v => Number(v) / 255);
    const [r, g, b] = shares.map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (colour !== 'rgba(0, 0, 0, 0)') return colour;
    }
  };
  const found = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.getClientRects().length || node.tagName === 'title') continue;
    const style = getComputedStyle(node), colour = node instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(colour), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push(`${node.tagName} ${node.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    program(*CHROMIUM, purpose="a look at the panel")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bad day, a good one and a young home."""
    root = tmp_path_factory.mktemp("pages")
    young = gather(resolve(home=root / "young"))
    found = {"bad": bad_facts(run="a-long-name-of-a-training-run-" * 4), "good": bad_facts(serving=True), "young": young}
    for name, facts in found.items():
        (root / f"{name}.html").write_text(render(facts))
    return {name: root / f"{name}.html" for name in found}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["bad", "good", "young"])
def test_the_page_fits_reads_well_and_asks_for_nothing(
    browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)  # type: ignore[arg-type]
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: said.append(request.url))
    address = pages[name].as_uri()
    page.goto(address)
    assert said == [address], "no other request, and no error"
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    box = page.locator("h1").bounding_box()
    assert box is not None and box["y"] < 200, "what is wrong stands at the top"
    assert page.evaluate(_CONTRASTS) == []
    context.close()


def test_the_colours_follow_the_scheme(browser: Browser, pages: dict[str, Path]) -> None:
    found = set()
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(pages["bad"].as_uri())
        found.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        context.close()
    assert len(found) == 2
