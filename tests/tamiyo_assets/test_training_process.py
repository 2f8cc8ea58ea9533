"""A training in a process of its own: the same bundle, bit for bit, whoever trains; and what fails says so and goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from dagster_pipes import PipesDefaultContextLoader, PipesDefaultMessageWriter, encode_param

from gnn.registry.refresh import load, refresh
from gnn.registry.rules import observed_keys, source_columns, source_tables
from gnn.remote.inputs import read_inputs
from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.configuration import TrainingConfig, TrainingLaunch
from schemas.derived.tables import DERIVED
from schemas.errors import TrainingError
from tamiyo_assets.assets.features import FeatureBuild
from tamiyo_assets.assets.graphs import GraphBuild
from tamiyo_assets.assets.model import BUNDLE, EXAMPLES, RESULTS
from tamiyo_assets.assets.normalization import EWMA, NORMS
from tamiyo_assets.assets.reports import key_of
from tamiyo_assets.definitions import build_definitions
from tests.tamiyo_assets.pipelines import TINY, settings
from tests.tamiyo_assets.stand_in import launched

ONE, TWO = TrainingLaunch(where="pipes"), TrainingLaunch(where="pipes", processes=2)
PATIENCE_S = 120.0
LONG = TINY.model_copy(update={"epochs": 60000, "steps": 60000, "checkpoint_seconds": 0.0})


def build_graphs(home: Path, exports: Path) -> None:
    """Make everything that a training reads from contract tables, but without Dagster."""
    tables = TableStore(home, DERIVED)
    Ingest(home, Exports(exports), tables).refresh()
    contracts = tables.read_each({name: source_columns(name) for name in source_tables()})
    refresh(home / "registries", observed_keys(contracts), tables.read("simic.registry_snapshot"))
    list(FeatureBuild(tables, Versions(home, tables)).refresh())
    list(GraphBuild(home, tables, load(home / "registries")).refresh())


class Trial:
    """A home of its own, a copy of one that is ready for training, and the run that trains there."""

    def __init__(self, place: Path, ready: Path, exports: Path, config: TrainingConfig = TINY) -> None:
        shutil.copytree(ready, place / "home", symlinks=True)
        self.home = place / "home"
        self.settings = settings(place, exports).model_copy(update={"training": config})

    def train(self, launch: TrainingLaunch, *before: dg.AssetKey) -> tuple[bool, str]:
        """Materialize what is trained; whether that succeeded, and what the run's log says, errors included."""
        definitions = build_definitions(self.settings.model_copy(update={"launch": launch}))
        selection = [*before, *(key_of(name) for name in RESULTS), BUNDLE]
        with dg.DagsterInstance.ephemeral() as instance:
            job = definitions.resolve_implicit_global_asset_job_def()
            done = job.execute_in_process(instance=instance, asset_selection=selection, raise_on_error=False)
            said = [record.message for record in instance.all_logs(done.run_id)]
        errors = [event.step_failure_data.error for event in done.all_events if event.is_step_failure]
        return done.success, "\n".join([*said, *(error.to_string() for error in errors if error is not None)])

    @property
    def trainings(self) -> Path:
        return self.home / "trainings"

    def published(self) -> dict[str, bytes]:
        """Every file of the bundles, and the content digests of the tables."""
        bundles = self.home / "bundles"
        found = {path.relative_to(bundles).as_posix(): path.read_bytes() for path in bundles.rglob("*") if path.is_file()}
        versions = Versions(self.home, TableStore(self.home, DERIVED))
        return found | {name: versions.of(name).digest.encode() for name in RESULTS}


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, some_hosts: Path) -> Path:
    """A home with graphs, norms and examples."""
    place = tmp_path_factory.mktemp("ready")
    build_graphs(place / "home", some_hosts)
    definitions = build_definitions(settings(place, some_hosts))
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance, asset_selection=[EWMA, NORMS, EXAMPLES]).success
    return place / "home"


@pytest.fixture
def trial(tmp_path: Path, ready: Path, some_hosts: Path) -> Trial:
    return Trial(tmp_path, ready, some_hosts)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, ready: Path, some_hosts: Path) -> dict[str, bytes]:
    """What a training in the process of the run publishes."""
    here = Trial(tmp_path_factory.mktemp("here"), ready, some_hosts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gnn.model.alongside.cores", lambda: 1)
        succeeded, said = here.train(TrainingLaunch())
    assert succeeded, said
    assert not here.trainings.exists()
    return here.published()


def script(path: Path, text: str) -> tuple[str, ...]:
    """A prefix: a script that is given the command."""
    path.write_text(textwrap.dedent(text))
    return (sys.executable, str(path))


KILLING = """
    import os, signal, subprocess, sys, time
    from pathlib import Path

    place = Path(sys.argv[sys.argv.index("gnn.remote") + 1])
    child = subprocess.Popen(sys.argv[1:], start_new_session=True)
    while not (place / "checkpoints" / "fold_0.pt").exists():
        assert child.poll() is None
        time.sleep(0.001)
    os.killpg(child.pid, signal.SIGKILL)
    print("nobody expects the reset button")
    sys.exit(137)
"""


def test_one_that_is_killed_in_the_middle_fails_clearly_and_two_go_on_to_the_same_bytes(
    trial: Trial, expected: dict[str, bytes], tmp_path: Path
) -> None:
    killed = ONE.model_copy(update={"prefix": script(tmp_path / "killing.py", KILLING)})
    succeeded, said = trial.train(killed)
    assert not succeeded
    assert "expected exit status 0, found: External execution process failed with code 137" in said
    assert "run the training again, it goes on from its checkpoints" in said
    assert "nobody expects the reset button" in said
    assert not (trial.home / "bundles").exists(), "nothing is published"
    succeeded, said = trial.train(TWO)
    assert succeeded, said
    assert "fold_0: epoch" not in said, "that was done"
    assert "process 1 of 2: fold_" in said
    assert trial.published() == expected
    assert not trial.trainings.exists(), "a published build needs no checkpoint"


ELSEWHERE = """
    import os, shutil, subprocess, sys
    from pathlib import Path

    there, here = Path(sys.argv[1]), sys.argv.index("gnn.remote") + 1
    command, sent = sys.argv[2:], Path(sys.argv[here])
    shutil.copytree(sent / "inputs", there / "inputs")
    sent.rename(sent.with_name("hidden"))
    command[here - 2] = str(there)
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=os.environ["CODE"])
    sent.with_name("hidden").rename(sent)
    shutil.copytree(there / "result", sent / "result")
    sys.exit(done.returncode)
"""


REPLAYING = """
    import hashlib, json, shutil, sys
    from pathlib import Path

    there, sent = Path(sys.argv[1]), Path(sys.argv[sys.argv.index("gnn.remote") + 1])
    shutil.copytree(there / "result", sent / "result")
    payload = {"result": hashlib.sha256((there / "result" / "result.json").read_bytes()).hexdigest()}
    method = {"method": "report_custom_message", "params": {"payload": payload}}
    print(json.dumps({"__dagster_pipes_version": "0.1"} | method))
    path = sent / "result" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
"""


def test_a_copy_of_the_inputs_is_enough_and_an_altered_result_is_refused(
    trial: Trial, expected: dict[str, bytes], tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a prefix with rsync and ssh would do: no variable and no file of the run's machine is there, only the copy."""
    monkeypatch.setenv("CODE", str(repository))
    there = str(tmp_path / "there")
    altered = (*script(tmp_path / "replaying.py", REPLAYING), there)
    copied = (*script(tmp_path / "elsewhere.py", ELSEWHERE), there)
    succeeded, said = trial.train(ONE.model_copy(update={"prefix": copied}))
    assert succeeded, said
    assert trial.published() == expected
    assert "fold_0: epoch 1 of at most 1" in said
    shutil.rmtree(trial.home / "bundles")
    succeeded, said = trial.train(ONE.model_copy(update={"prefix": altered}))
    assert not succeeded
    assert "weights.safetensors: expected SHA-256" in said
    assert not (trial.home / "bundles").exists()
    (build,) = trial.trainings.iterdir()
    check_inputs(build / "inputs", trial.home)


def check_inputs(inputs: Path, home: Path) -> None:
    """The folder holds what the build is made of and nothing else, and no path of this machine; any change is refused."""
    stated = json.loads((inputs / "inputs.json").read_bytes())
    names = {path.relative_to(inputs).as_posix() for path in inputs.rglob("*") if path.is_file()}
    assert names == stated["files"].keys() | {"inputs.json"}
    shard = {"header.json", "marks.bin", "values.bin", "ints.bin", "counts.bin", "keys.arrow", "names.arrow", "runs.arrow"}
    assert {Path(name).name for name in names if name.startswith("graphs/")} == shard
    plain = {name for name in names if not name.startswith(("graphs/", "registries/"))}
    assert plain == {
        "inputs.json", "examples.arrow", "kernels.safetensors", "gnn_norms.json", "catalogue/urza.blueprint.arrow",
        "catalogue/urza.parameter.arrow",
    }  # fmt: skip
    registries = {path.name for path in (home / "registries").glob("*_registry.json")} | {"index.json"}
    assert {name.removeprefix("registries/") for name in names if name.startswith("registries/")} == registries
    assert not any(str(home).encode() in (inputs / name).read_bytes() for name in names)
    assert read_inputs(inputs).build.build_id == inputs.parent.name
    for name in ("examples.arrow", "graphs/0/values.bin", "registries/seed_registry.json", "catalogue/urza.parameter.arrow"):
        path = inputs / name
        data = path.read_bytes()
        path.unlink()  # shards are linked: what is written into one would be written into the home
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(TrainingError, match=f"{name}: expected SHA-256"):
            read_inputs(inputs)
        path.write_bytes(data)
    (inputs / "more").symlink_to("/etc/hostname")
    with pytest.raises(TrainingError, match=r"expected plain files, found links or special files: .*more"):
        read_inputs(inputs)
    (inputs / "more").unlink()
    (inputs / "more").write_bytes(b"")
    with pytest.raises(TrainingError, match="'more': not listed"):
        read_inputs(inputs)
    (inputs / "more").unlink()
    stated["build"]["code"] = "0" * 64
    (inputs / "inputs.json").write_text(json.dumps(stated))
    with pytest.raises(TrainingError, match=f"code: expected {'0' * 64}, found .*; install the sender's version"):
        read_inputs(inputs)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("printf 'a\\377\\000b\\n'; seq 100; exit 3", "failed with code 3"),
        ("exit 0", "expected the digest of one result, found 0"),
        ('echo \'{"__dagster_pipes_version": "0.1", "method": "rm", "params": {}}\'', "found 0"),
        ('echo \'{"__dagster_pipes_version": "0.1", "method": "report_custom_message", "params": {"payload": 7}}\'', "found 0"),
        ("head -c 3000000 /dev/zero | tr '\\000' x", "found 0"),
        ("no-such-command-anywhere", "no-such-command-anywhere"),
    ],
)
def test_garbage_fails_with_the_last_lines(command: str, says: str) -> None:
    passed, error = launched(("/bin/sh", "-c", command))
    assert not passed
    assert says in error
    assert len(error) < 60_000
    if "seq" in command:
        assert "99\n100" in error and "\n5\n" not in error


def test_a_message_in_the_right_form_is_taken(tmp_path: Path) -> None:
    message = {"__dagster_pipes_version": "0.1", "method": "report_custom_message", "params": {"payload": {"result": "ab"}}}
    (tmp_path / "said").write_text(f"\n\nhello\n{json.dumps(message)}\n\n")
    assert launched(("/bin/sh", "-c", f"cat {tmp_path}/said"))[0]


def test_an_interrupted_run_ends_the_process(tmp_path: Path, repository: Path) -> None:
    """A run is terminated by SIGINT; the step ends as interrupted when the process has ended."""
    path, pid = tmp_path / "waiting.py", tmp_path / "pid"
    waiting = script(
        path, f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(600)"
    )
    code = f"import sys; from tests.tamiyo_assets.stand_in import launched; sys.exit(7 if not launched({waiting!r})[0] else 0)"
    run = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], cwd=repository, stderr=subprocess.DEVNULL)
    until("the process", lambda: pid.exists() and pid.read_text() != "")
    child = int(pid.read_text())
    run.send_signal(signal.SIGINT)
    assert run.wait(PATIENCE_S) == 7
    until("its end", lambda: not Path(f"/proc/{child}").exists())


def until(what: str, found: Callable[[], object]) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not found():
        assert time.monotonic() < limit, f"waited in vain for {what}"
        time.sleep(0.02)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_processes_end_soon_after_nobody_reads_them_any_more(
    tmp_path: Path, ready: Path, some_hosts: Path, repository: Path, processes: int
) -> None:
    """So they end if the run that started them is killed, here or at the other end of ssh."""
    trial = Trial(tmp_path, ready, some_hosts, LONG)
    command = script(tmp_path / "not_yet.py", "import sys; sys.exit(1)")
    assert not trial.train(ONE.model_copy(update={"prefix": command}))[0]
    (build,) = trial.trainings.iterdir()
    given = {"context": {PipesDefaultContextLoader.DIRECT_KEY: {}}, "messages": {PipesDefaultMessageWriter.STDIO_KEY: "stdout"}}
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if processes > 1 else []
    options = [each for name, value in given.items() for each in (f"--dagster-pipes-{name}", encode_param(value))]
    child = subprocess.Popen(
        [sys.executable, *ranks, "-m", "gnn.remote", str(build), *options],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until("a checkpoint of each", lambda: len([*(build / "checkpoints").glob("*.pt")]) >= processes)
    assert child.stdout is not None
    child.stdout.close()
    assert child.wait(PATIENCE_S) == 1
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)


@pytest.mark.soak
def test_the_whole_sample_with_the_default_network_gives_the_same_bytes(tmp_path: Path, sample: Path) -> None:
    build_graphs(tmp_path / "ready", sample)
    found = []
    for name, launch in (("here", TrainingLaunch()), ("one", ONE), ("two", TWO)):
        trial = Trial(tmp_path / name, tmp_path / "ready", sample, TrainingConfig())
        began = time.monotonic()
        succeeded, said = trial.train(launch, EWMA, NORMS, EXAMPLES)
        assert succeeded, said
        print(f"{name}: {time.monotonic() - began:.0f} s")
        found.append(trial.published())
    assert found[1] == found[0]
    assert found[2] == found[0]
