"""Create, upgrade and open the Dagster instance of a home: `python -m tamiyo_assets.instance DIR`."""

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import dagster as dg
import yaml
from dagster._core.instance.ref import InstanceRef

from lake.durable.publish import lock, publish_file
from lake.settings import SAMPLE, Settings
from lake.writes import EXPORTS, HOME, WRITES_TAGS
from schemas.errors import StorageError

CONFIGURATION: Final = Path(__file__).resolve().parents[1] / "dagster.yaml"
_NO_LOGS: Final = {"module": "dagster.core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
_SAME_AS_COORDINATOR: Final = frozenset({"run_queue"})  # other names of what `run_coordinator` configures
_MARK: Final = re.compile(rb"# tamiyo-assets instance (\d+)\n")


def open_instance(dagster_home: Path) -> dg.DagsterInstance:
    """Open the instance under `dagster_home`, with the `dagster.yaml` of this project.

    A fresh SQLite home that several processes open at once fails in a migration, so it is opened under a lock. Steps that run
    in this process print where it prints: to capture that into files, Dagster would start four processes a step.
    """
    dagster_home.mkdir(parents=True, exist_ok=True)
    with lock(dagster_home / ".opening.lock"):
        update_configuration(dagster_home)
        instance = dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(dagster_home), overrides={"compute_logs": _NO_LOGS}))
        instance.get_run_records(limit=1)  # touches each storage, which creates its tables
        instance.get_asset_keys(limit=1)
    return instance


def update_configuration(dagster_home: Path) -> None:
    """Give an instance this project's `dagster.yaml`, unless it has that of this version or a later one.

    Settings of an existing file that this project does not make (storage, for example) are kept, except those that Dagster
    refuses beside our run coordinator. The old file stays beside the new one as `dagster.yaml.old`. Raises StorageError if the
    old file is not YAML with a mapping.
    """
    path = dagster_home / "dagster.yaml"
    ours = CONFIGURATION.read_bytes()
    if not path.exists():
        publish_file(path, ours)
        return
    theirs = path.read_bytes()
    if _version(theirs) >= _version(ours):
        return
    kept = _others(path, theirs, yaml.safe_load(ours))
    shutil.copyfile(path, path.with_name("dagster.yaml.old"))
    publish_file(path, ours + (yaml.safe_dump(kept).encode() if kept else b""))


def _others(path: Path, theirs: bytes, ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an older file that this project does not make."""
    try:
        found: Any = yaml.safe_load(theirs) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes that are no text
        found = " ".join(str(error).split())
    if not isinstance(found, dict):
        raise StorageError(f"{path}: expected YAML with a mapping, found: {found}; mend it, or remove it for the defaults")
    others = {name: value for name, value in found.items() if name not in ours and name not in _SAME_AS_COORDINATOR}
    runs = (others.get("concurrency") or {}).get("runs") or {}
    runs.pop("tag_concurrency_limits", None)
    return others


def _version(configuration: bytes) -> int:
    mark = _MARK.search(configuration)
    return int(mark[1]) if mark else 0


def forget_sample(instance: dg.DagsterInstance, settings: Settings) -> bool:
    """Wipe asset events that the committed sample left in the instance, before the first run on own exports.

    Returns whether there were any. Nothing is wiped unless the newest run that wrote read the sample into another home.
    """
    runs = instance.get_runs(filters=dg.RunsFilter(tags=dict(WRITES_TAGS)), limit=1)
    tags = runs[0].tags if runs else {}
    if tags.get(EXPORTS) != str(SAMPLE) or tags.get(HOME) == str(settings.home):
        return False
    instance.wipe_assets(instance.get_asset_keys())
    return True


if __name__ == "__main__":
    with open_instance(Path(sys.argv[1])):
        pass
