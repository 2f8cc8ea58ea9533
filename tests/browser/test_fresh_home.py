"""What a newcomer does: start the UI on a fresh home, click once, drop own exports, kill a run. All of it real."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.asset_graph import CHROMIUM, open_graph, page
from tests.browser.webserver import Webserver, free_port
from tests.components import program
from tests.exports import part_of

pytestmark = [pytest.mark.browser, pytest.mark.pipeline]

TINY = "retrain_after = 0\n[training]\nepochs = 1\nsteps = 2\nbootstrap = 20\nboosting = false\nno_messages = false\n"
_RUNS = "query { runsOrError(limit: 50) { ... on Runs { results { runId jobName status tags { key value } } } } }"
_STALE = """
query { assetNodes { assetKey { path } staleStatus assetMaterializations(limit: 1) { runId } } }
"""


class Dev(Webserver):
    """`dagster dev` as `make ui` starts it, in an empty working directory, with no variable of this project set but `webhook`.

    Links in alerts lead to this UI.
    """

    def __init__(self, place: Path, repository: Path, webhook: str = "") -> None:
        self.place = place
        dagster_home = place / "var" / "dagster"
        env = {name: value for name, value in os.environ.items() if not name.startswith(("TAMIYO_", "DAGSTER_"))}
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._env = env | {"DAGSTER_HOME": str(dagster_home), "TAMIYO_UI_URL": self.address, "TAMIYO_ALERT_WEBHOOK": webhook}
        opened = [sys.executable, "-m", "tamiyo_assets.instance", str(dagster_home)]
        subprocess.run(opened, cwd=place, env=self._env, check=True)
        self._log = (place / "dev.log").open("wb")
        command = [str(Path(sys.executable).with_name("dagster")), "dev", "-w", str(repository / "workspace.yaml")]
        self._processes = [
            subprocess.Popen(
                [*command, "-p", str(self.port)], cwd=place, env=self._env, stdout=self._log, stderr=subprocess.STDOUT
            )
        ]
        self._wait()

    def tamiyo(self, *arguments: str) -> str:
        """What a `tamiyo` command prints that an operator enters beside this UI."""
        command = [sys.executable, "-m", "tamiyo", *arguments]
        return subprocess.run(command, cwd=self.place, env=self._env, check=True, capture_output=True, text=True).stdout

    def runs(self) -> list[dict[str, Any]]:
        """All runs, newest first, with their tags."""
        found: list[dict[str, Any]] = self.query(_RUNS)["runsOrError"]["results"]
        return [run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]

    def wait_for(self, what: str, *, known: set[str], seconds: float = 240, tag: str = "") -> dict[str, Any]:
        """The first run of a job that is not `known`, once it has a tag."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            for run in self.runs():
                if run["jobName"] == what and run["runId"] not in known and (not tag or tag in run["tags"]):
                    return run
            time.sleep(0.1)
        log = (self.place / "dev.log").read_text()[-3000:]
        raise TimeoutError(f"no run of {what} within {seconds} s; runs: {self.runs()}; log: {log}")

    def not_up_to_date(self) -> set[str]:
        """Assets that the UI shows as missing or stale."""
        nodes = self.query(_STALE)["assetNodes"]
        return {"/".join(node["assetKey"]["path"]) for node in nodes if node["staleStatus"] != "FRESH"}


@pytest.fixture
def dev(tmp_path: Path, repository: Path) -> Iterator[Dev]:
    program(*CHROMIUM, purpose="a click in the UI")
    for home in ("sample", "tamiyo"):
        (tmp_path / "var" / home).mkdir(parents=True)
        (tmp_path / "var" / home / "pipeline.toml").write_text(TINY)
    found = Dev(tmp_path, repository)
    yield found
    found.close()


def new_seeds(place: Path, name: str) -> None:
    path = place / "var/exports/kasmina/seed_state" / f"{name}.ndjson"
    seed = {"seed_id": "s", "training_run_id": name, "timestamp_ns": "1", "stage": "SEED_STAGE_DORMANT", "alpha": 0.5}
    path.with_suffix(".tmp").write_text(json.dumps(seed) + "\n")
    path.with_suffix(".tmp").rename(path)


def test_one_click_a_dropped_file_and_a_killed_run(dev: Dev, sample: Path, tmp_path: Path) -> None:
    with page() as shown:
        open_graph(shown, dev.address)
        shown.locator("button", has_text="Materialize all").first.click()
        clicked = dev.wait_for("__ASSET_JOB", known=set())
        assert shown.get_by_role("dialog").count() == 0, "one click is enough"
        assert dev.finished(clicked["runId"])["status"] == "SUCCESS"
    assert dev.run(clicked["runId"])["tags"]["tamiyo/home"] == str(tmp_path / "var/sample")
    assert dev.not_up_to_date() <= {"bundle/current"}

    # the first own exports, without a restart: a clean home, everything built, the sample's events wiped
    part_of(sample, tmp_path / "stage")
    (tmp_path / "stage").rename(tmp_path / "var/exports")
    first = dev.wait_for("everything", known=set())
    assert dev.finished(first["runId"])["status"] == "SUCCESS"
    assert dev.run(first["runId"])["tags"]["tamiyo/home"] == str(tmp_path / "var/tamiyo")
    assert dev.not_up_to_date() <= {"bundle/current"}

    # a run that is killed is failed and started again, and ends well
    new_seeds(tmp_path, "late")
    known = {run["runId"] for run in dev.runs()}
    killed = dev.wait_for("rebuild", known=known, tag="tamiyo/pid")
    os.kill(int(killed["tags"]["tamiyo/pid"]), signal.SIGKILL)
    again = dev.wait_for("rebuild", known=known | {killed["runId"]})
    assert dev.finished(killed["runId"])["status"] == "FAILURE"
    assert dev.finished(again["runId"])["status"] == "SUCCESS"
    assert again["tags"]["dagster/parent_run_id"] == killed["runId"]
    trained = dev.wait_for("train", known=known)
    assert dev.finished(trained["runId"])["status"] == "SUCCESS"
    assert dev.not_up_to_date() <= {"bundle/current"}
