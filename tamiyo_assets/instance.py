"""The Dagster instance of a home: made once, then opened."""

import shutil
from pathlib import Path

import dagster as dg

from gnn.publish import lock

CONFIGURATION = Path(__file__).resolve().parents[1] / "dagster.yaml"


def open_instance(dagster_home: Path) -> dg.DagsterInstance:
    """Open the instance under `dagster_home`, creating it with the house's `dagster.yaml` where there is none.

    A fresh SQLite home that several processes open at once fails in a migration, so the opening is under a lock.
    """
    dagster_home.mkdir(parents=True, exist_ok=True)
    with lock(dagster_home / ".opening.lock"):
        if not (dagster_home / "dagster.yaml").exists():
            shutil.copyfile(CONFIGURATION, dagster_home / "dagster.yaml")
        instance = dg.DagsterInstance.from_config(str(dagster_home))
        instance.get_run_records(limit=1)  # touches each storage, which creates its tables
        instance.get_asset_keys(limit=1)
    return instance
