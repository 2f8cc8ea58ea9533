"""A recording that is really killed leaves whole files, and the same command goes on without repeating a host."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa

from schemas.contracts import FOLDERS
from schemas.decode import decode_file

SCRIPT = """
import sys
from pathlib import Path
import recorder.runs.firstphase as phase
from recorder.kernels import KERNELS
from recorder.runs.plan import RecordPlan
from recorder.runs.record import record
phase.KERNELS = {name: KERNELS[name] for name in ("kernel-identity", "kernel-scale")}
plan = RecordPlan(
    exports=Path(sys.argv[1]), hosts=4, states=(50,), replicates=1, replicate_cap=1, horizons=(20,), graft_steps=(50,),
    total_steps=80, sheet_hosts=1, kernels=2, sites=1, rotate_hosts=1, long_every=0, compile_backend="eager",
    data_sets=("digits",), architectures=("mlp",),
)
record(plan, lambda progress: print(progress, flush=True))
"""


def start(root: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", SCRIPT, str(root)], stdout=subprocess.DEVNULL)


def packets(root: Path) -> list[tuple[str, str]]:
    folder = "tolaria/system_state"
    tables = [
        part.tables["tolaria.system_state"]
        for path in sorted((root / folder).glob("[!.]*"))
        for part in decode_file(path, FOLDERS[folder], file=path.name, digest="")
        if "tolaria.system_state" in part.tables
    ]
    rows = pa.concat_tables(tables).to_pylist() if tables else []
    return [(row["training_run_id"], row["packet_id"]) for row in rows]


def test_a_killed_recording_is_readable_and_goes_on(tmp_path):
    process = start(tmp_path)
    deadline = time.monotonic() + 120
    while len(packets(tmp_path)) == 0 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = packets(tmp_path)
    assert before
    assert len(set(before)) == len(before)
    assert start(tmp_path).wait(timeout=180) == 0
    after = packets(tmp_path)
    assert len(set(after)) == len(after)
    assert set(before) <= set(after)
    assert len({run for run, _ in after}) == 4
    assert not list(tmp_path.rglob("*.part"))
