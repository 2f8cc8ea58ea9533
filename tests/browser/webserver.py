"""A really started `dagster-webserver` on a home of its own, and its GraphQL."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
_START_SECONDS = 120.0
_DONE = ("SUCCESS", "FAILURE", "CANCELED")

_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on PipelineNotFoundError { message }
    ... on InvalidSubsetError { message }
    ... on UnauthorizedError { message }
  }
}
"""
_STATUS = "query Status($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


class Webserver:
    """One webserver process; `close` ends it."""

    def __init__(self, *, home: Path, exports: Path, dagster_home: Path) -> None:
        dagster_home.mkdir(parents=True, exist_ok=True)
        (dagster_home / "dagster.yaml").write_bytes((REPOSITORY / "dagster.yaml").read_bytes())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        env = os.environ | {"DAGSTER_HOME": str(dagster_home), "TAMIYO_HOME": str(home), "TAMIYO_EXPORTS": str(exports)}
        command = [str(Path(sys.executable).with_name("dagster-webserver")), "-h", "127.0.0.1", "-p", str(self.port)]
        self._log = (dagster_home / "webserver.log").open("wb")
        self._process = subprocess.Popen(
            [*command, "-w", "workspace.yaml"], cwd=REPOSITORY, env=env, stdout=self._log, stderr=subprocess.STDOUT
        )
        self._wait()

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        """Data of one GraphQL operation; AssertionError where it answers errors."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.address}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found["errors"]
        data: dict[str, Any] = found["data"]
        return data

    def materialize(
        self, *keys: str, job: str = "everything", tags: dict[str, str] | None = None, checks: bool = True, seconds: float = 120
    ) -> str:
        """Launch a materialization of `a/b` keys (all of the job where none), wait for its end, return its status."""
        selector: dict[str, Any] = {
            "repositoryLocationName": "tamiyo_assets",
            "repositoryName": "__repository__",
            "pipelineName": job,
        }
        if keys:
            selector["assetSelection"] = [{"path": key.split("/")} for key in keys]
        if not checks:
            selector["assetCheckSelection"] = []
        metadata = {"tags": [{"key": key, "value": value} for key, value in (tags or {}).items()]}
        params = {"selector": selector, "mode": "default", "executionMetadata": metadata}
        launched = self.query(_LAUNCH, params=params)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run_id = launched["run"]["runId"]
        return self._finished(run_id, seconds)

    def _finished(self, run_id: str, seconds: float) -> str:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            status: str = self.query(_STATUS, id=run_id)["runOrError"]["status"]
            if status in _DONE:
                return status
            time.sleep(0.5)
        raise TimeoutError(f"run {run_id} had not ended after {seconds} s")

    def _wait(self) -> None:
        limit = time.monotonic() + _START_SECONDS
        while time.monotonic() < limit:
            try:
                if self.query("query { version }"):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert self._process.poll() is None, Path(self._log.name).read_text()[-3000:]
                time.sleep(0.5)
        raise TimeoutError(f"the webserver did not answer in {_START_SECONDS} s: {Path(self._log.name).read_text()[-3000:]}")

    def close(self) -> None:
        """End the process and wait for it."""
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
