"""An operator's day with gaps: packets come without a mandatory key, are sent again whole, or their run is retired.

All of it real: `dagster dev`, a webhook, a browser that opens the link of the alert. The seconds are printed, for people;
`GAP_PICTURES=docs/images` renews the picture in the documents.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from lake.alert_outbox import AlertOutbox
from lake.store.table_store import TableStore
from schemas.derived.tables import DERIVED
from tests.browser.asset_graph import CHROMIUM, page
from tests.browser.test_fresh_home import TINY, Dev
from tests.components import program
from tests.exports import part_of
from tests.webhook import Webhook

pytestmark = [pytest.mark.browser, pytest.mark.pipeline, pytest.mark.soak]  # minutes: four rebuilds under real sensors

KEY, SYSTEM, CHECK = "layer.gradient_norm", "tolaria", "mandatory_coverage"
MENDED, RETIRED = "run-s7-0508", "run-s7-0509"  # two runs of the sample whose packets come late
_PICTURE_BYTES = 250_000
QUICK = f"{TINY}rounds_epochs = 1\ngaussian_process = false\n[training.model]\nhidden = 16\nmembers = 2\n"
_EVALUATIONS = """
query { assetCheckExecutions(assetKey: {path: ["coverage", "by_key"]}, checkName: "mandatory_coverage", limit: 20) {
  status runId evaluation { timestamp description } } }
"""


class Story:
    """One home, its UI and its webhook, and what the operator does."""

    def __init__(self, dev: Dev, webhook: Webhook, packets: dict[str, list[bytes]]) -> None:
        self.dev, self.webhook, self._packets = dev, webhook, packets
        self.home = dev.place / "var/tamiyo"

    def drop(self, run: str, name: str, *, whole: bool) -> float:
        """Export the packets of a run, with the norms of their gradients or without; the time, in s since 1970."""
        lines = self._packets[run] if whole else [without_norms(line) for line in self._packets[run]]
        path = self.dev.place / "var/exports/tolaria/system_state" / f"{name}.ndjson"
        path.with_suffix(".tmp").write_bytes(b"".join(lines))
        path.with_suffix(".tmp").rename(path)
        return time.time()

    def evaluated(self, since: float, status: str) -> dict[str, Any]:
        """The first evaluation of the check since a time, which must have this status."""

        def newest() -> dict[str, Any] | None:
            done = [one for one in self.dev.query(_EVALUATIONS)["assetCheckExecutions"] if one["evaluation"]]
            later = [one for one in done if one["evaluation"]["timestamp"] > since]
            return later[-1] if later else None

        found = self._wait(f"an evaluation of {CHECK}", newest)
        assert found["status"] == status, found
        return found

    def told(self, count: int) -> dict[str, Any]:
        """The last of `count` messages of the check, once it has come."""
        self._wait(f"message {count} of {CHECK}", lambda: self.messages()[count - 1 :])
        assert len(self.messages()) == count, self.messages()
        return self.messages()[-1]

    def messages(self) -> list[dict[str, Any]]:
        """What the webhook was told of the check."""
        return [post for post in self.webhook.posts if post["check"] == CHECK]

    def _wait(self, what: str, look: Callable[[], Any], seconds: float = 120) -> Any:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if found := look():
                return found
            time.sleep(0.1)
        log = (self.dev.place / "dev.log").read_text()[-3000:]
        raise TimeoutError(f"no {what} within {seconds} s; runs: {self.dev.runs()}; log: {log}")


def without_norms(line: bytes) -> bytes:
    """A packet without the norm of gradients, its own and that of each layer."""
    packet = json.loads(line)
    del packet["training_metrics"]["gradient_norm"]
    for layer in packet["layers"]:
        layer.pop("gradient_norm", None)
    return json.dumps(packet).encode() + b"\n"


def take_out(exports: Path, *runs: str) -> dict[str, list[bytes]]:
    """Take the packets of runs out of the exports; their lines."""
    (path,) = (exports / "tolaria/system_state").iterdir()
    lines = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read().splitlines(keepends=True)
    found = {run: [line for line in lines if json.loads(line)["training_run_id"] == run] for run in runs}
    rest = [line for line in lines if json.loads(line)["training_run_id"] not in runs]
    assert rest and all(found.values())
    path.write_bytes(zstandard.compress(b"".join(rest)))
    return found


@pytest.fixture
def story(tmp_path: Path, repository: Path, sample: Path, webhook: Webhook) -> Iterator[Story]:
    """A home in which the other runs of the last batch were rebuilt and trained on."""
    program(*CHROMIUM, purpose="a look at a failed check")
    (tmp_path / "var/tamiyo").mkdir(parents=True)
    (tmp_path / "var/tamiyo/pipeline.toml").write_text(QUICK)
    packets = take_out(part_of(sample, tmp_path / "var/exports"), MENDED, RETIRED)
    dev = Dev(tmp_path, repository, webhook.address)
    try:
        first = dev.wait_for("everything", known=set())
        assert dev.finished(first["runId"])["status"] == "SUCCESS"
        yield Story(dev, webhook, packets)
    finally:
        dev.close()


def test_a_gap_is_told_once_shown_and_closed_by_a_second_export_or_by_retiring_its_run(
    story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dev, known = story.dev, {run["runId"] for run in story.dev.runs()}
    assert story.messages() == []
    dropped = story.drop(MENDED, "late", whole=False)
    failed = story.evaluated(dropped, "FAILED")
    alert = story.told(1)
    seconds = {"failed check": failed["evaluation"]["timestamp"] - dropped, "alert": time.time() - dropped}
    assert (alert["state"], alert["severity"], alert["problem"], alert["runs"]) == ("open", "ERROR", KEY, [MENDED])
    assert all(word in alert["text"] for word in (KEY, f"Ask {SYSTEM}.", MENDED))
    trained = dev.wait_for("train", known=known)
    assert dev.finished(trained["runId"])["status"] == "SUCCESS"
    assert dev.run(trained["runId"])["startTime"] > failed["evaluation"]["timestamp"]
    (story.home / "pipeline.toml").write_text(QUICK.replace("retrain_after = 0\n", ""))  # the rest of the day trains nothing
    look_at(alert["url"], failed["evaluation"]["description"], tmp_path)

    story.evaluated(story.drop(MENDED, "late-again", whole=True), "SUCCEEDED")
    closed = story.told(2)
    assert (closed["state"], closed["alert_id"]) == ("resolved", alert["alert_id"])

    story.evaluated(story.drop(RETIRED, "later", whole=False), "FAILED")
    assert (story.told(3)["state"], story.told(3)["runs"]) == ("open", [RETIRED])
    assert covered(story.home) >= {MENDED, RETIRED}
    retired = time.time()
    assert RETIRED in dev.tamiyo("retire", RETIRED, "--reason", "its exporter sends no norms before its upgrade")
    story.evaluated(retired, "SUCCEEDED")
    assert story.told(4)["state"] == "resolved"
    assert MENDED in covered(story.home) and RETIRED not in covered(story.home)

    assert [post["state"] for post in story.messages()] == ["open", "resolved"] * 2
    assert not [post for post in story.webhook.posts if post["asset"] == "runs"], "a failed check is no failed run"
    assert AlertOutbox(story.home, None).read().undelivered() == []
    each = Counter((post["asset"], post["check"], post["problem"], post["state"]) for post in story.webhook.posts)
    assert len(story.webhook.keys) == len(set(story.webhook.keys)) == sum(each.values())
    with capsys.disabled():
        print(f"\ngap: {', '.join(f'{name} after {value:.1f} s' for name, value in seconds.items())}; messages: {dict(each)}")


def look_at(url: str, description: str, tmp_path: Path) -> None:
    """Open the link of an alert: the page of the check says what fails."""
    picture = Path(os.environ.get("GAP_PICTURES") or tmp_path) / "gap-open.png"
    with page(1400, 800) as shown:
        shown.goto(url, wait_until="domcontentloaded")
        shown.get_by_text(description.split(",")[0]).first.wait_for(timeout=60_000)
        assert shown.get_by_text("Failed").count() > 0
        shown.wait_for_timeout(1_000)
        shown.screenshot(path=picture)
    assert 10_000 < picture.stat().st_size < _PICTURE_BYTES


def covered(home: Path) -> set[str]:
    """Training runs that the coverage counts."""
    runs: list[str] = TableStore(home, DERIVED).read("coverage.by_key", columns=["training_run_id"]).column(0).to_pylist()
    return set(runs)
