"""A really started `dagster-webserver` on a home of its own, its GraphQL, and the daemon that starts what is queued."""

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

import psutil

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
_RUN = """
query Run($id: ID!) { runOrError(runId: $id) { ... on Run { runId status startTime endTime tags { key value } } } }
"""
_SENSORS = """
query Sensors($repository: RepositorySelector!) {
  sensorsOrError(repositorySelector: $repository) { ... on Sensors { results { sensorState { id } } } }
}
"""
_STOP = "mutation Stop($id: String!) { stopSensor(id: $id) { __typename } }"
_LOCATION = {"repositoryLocationName": "tamiyo_assets", "repositoryName": "__repository__"}


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Interface:
    """The GraphQL of the webserver at `address`."""

    def __init__(self, address: str) -> None:
        self.address = address

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        """Data of one GraphQL operation; AssertionError where it answers errors."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.address}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found["errors"]
        data: dict[str, Any] = found["data"]
        return data

    def launch(self, *keys: str, job: str = "everything", tags: dict[str, str] | None = None, checks: bool = True) -> str:
        """Launch a materialization of `a/b` keys (all of the job if there is none); return its run id."""
        selector: dict[str, Any] = {**_LOCATION, "pipelineName": job}
        if keys:
            selector["assetSelection"] = [{"path": key.split("/")} for key in keys]
        if not checks:
            selector["assetCheckSelection"] = []
        metadata = {"tags": [{"key": key, "value": value} for key, value in (tags or {}).items()]}
        params = {"selector": selector, "mode": "default", "executionMetadata": metadata}
        launched = self.query(_LAUNCH, params=params)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run_id: str = launched["run"]["runId"]
        return run_id

    def run(self, run_id: str) -> dict[str, Any]:
        """Id, status, startTime, endTime (epoch seconds) and tags of a run."""
        found: dict[str, Any] = self.query(_RUN, id=run_id)["runOrError"]
        return found | {"tags": {tag["key"]: tag["value"] for tag in found["tags"]}}

    def finished(self, run_id: str, seconds: float = 300) -> dict[str, Any]:
        """The run once it has ended; TimeoutError if it has not after some seconds."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            found = self.run(run_id)
            if found["status"] in _DONE:
                return found
            time.sleep(0.5)
        raise TimeoutError(f"run {run_id} had not ended after {seconds} s: {found}")


class Webserver(Interface):
    """One webserver process, and a daemon once a run is launched; `close` ends both, and the runs that they started."""

    def __init__(self, *, home: Path, exports: Path, dagster_home: Path) -> None:
        dagster_home.mkdir(parents=True, exist_ok=True)
        (dagster_home / "dagster.yaml").write_bytes((REPOSITORY / "dagster.yaml").read_bytes())
        self.port = free_port()
        super().__init__(f"http://127.0.0.1:{self.port}")
        self._env = os.environ | {"DAGSTER_HOME": str(dagster_home), "TAMIYO_HOME": str(home), "TAMIYO_EXPORTS": str(exports)}
        command = [str(Path(sys.executable).with_name("dagster-webserver")), "-h", "127.0.0.1", "-p", str(self.port)]
        self._log = (dagster_home / "webserver.log").open("wb")
        self._processes = [self._start(*command)]
        self._wait()

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, "-w", "workspace.yaml"], cwd=REPOSITORY, env=self._env, stdout=self._log, stderr=subprocess.STDOUT
        )

    def start_daemon(self) -> None:
        """Start the daemon, which starts queued runs, with every sensor stopped: runs are those that a test launches."""
        if len(self._processes) > 1:
            return
        for sensor in self.query(_SENSORS, repository=_LOCATION)["sensorsOrError"]["results"]:
            stopped = self.query(_STOP, id=sensor["sensorState"]["id"])["stopSensor"]
            assert stopped["__typename"] == "StopSensorMutationResult", stopped
        self._processes.append(self._start(str(Path(sys.executable).with_name("dagster-daemon")), "run"))

    def materialize(self, *keys: str, seconds: float = 300, **launched: Any) -> str:
        """Launch a materialization, wait for its end, return its status."""
        run_id = self.launch(*keys, **launched)
        self.start_daemon()
        status: str = self.finished(run_id, seconds)["status"]
        return status

    def _wait(self) -> None:
        limit = time.monotonic() + _START_SECONDS
        while time.monotonic() < limit:
            try:
                if self.query("query { version }"):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert self._processes[0].poll() is None, Path(self._log.name).read_text()[-3000:]
                time.sleep(0.5)
        raise TimeoutError(f"the webserver did not answer in {_START_SECONDS} s: {Path(self._log.name).read_text()[-3000:]}")

    def close(self) -> None:
        """End the processes with their children, and wait for them."""
        family = [child for process in self._processes for child in psutil.Process(process.pid).children(recursive=True)]
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in psutil.wait_procs(family, timeout=5)[1]:
            child.kill()
        self._log.close()
