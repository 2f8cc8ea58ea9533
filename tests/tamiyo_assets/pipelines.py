"""Settings of small pipelines: everything real, but a model that trains in a second."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg

from lake.settings import Settings
from schemas.configuration import ModelConfig, TrainingConfig
from tamiyo.execution import Outcome, run_everything
from tamiyo_assets.instance import open_instance

TINY = TrainingConfig(
    epochs=1,
    rounds_epochs=1,
    steps=2,
    bootstrap=20,
    boosting=False,
    gaussian_process=False,
    model=ModelConfig(
        hidden=16,
        activation_hidden=16,
        out=16,
        heads=2,
        embedding=4,
        identity_embedding=4,
        compile_embedding=16,
        head_hidden=16,
        rank=4,
        members=2,
    ),
)


def settings(root: Path, exports: Path, webhook: str | None = None) -> Settings:
    """A pipeline under `root` that reads `exports`."""
    return Settings(home=root / "home", exports=exports, dagster_home=root / "dagster", alert_webhook=webhook, training=TINY)


def run(found: Settings) -> Outcome:
    """`tamiyo run` without a terminal."""
    return run_everything(found, lambda *_: None)


def data_versions(found: Settings) -> dict[str, str]:
    """Newest data version of every asset in the instance."""
    versions = {}
    with open_instance(found.dagster_home) as instance:
        for key in instance.get_asset_keys():
            event = instance.get_latest_materialization_event(key)
            if event is not None and event.asset_materialization is not None:
                tags = event.asset_materialization.tags or {}
                versions[key.to_user_string()] = tags.get("dagster/data_version", "")
    return versions


def event_bytes(found: Settings) -> list[int]:
    """Length of every event, as it is stored in the database of its run and in the index."""
    lengths: list[int] = []
    for path in (found.dagster_home / "history" / "runs").glob("*.db"):
        with closing(sqlite3.connect(path)) as connection:
            lengths += [row[0] for row in connection.execute("SELECT length(event) FROM event_logs")]
    return lengths


def metadata_values(found: Settings, key: str) -> dict[str, dg.MetadataValue]:
    """Metadata of the newest materialization of an asset `a/b`, typed."""
    with open_instance(found.dagster_home) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(key.split("/")))
    assert event is not None and event.asset_materialization is not None
    return dict(event.asset_materialization.metadata)


def metadata(found: Settings, key: str) -> dict[str, Any]:
    """Metadata of the newest materialization of an asset `a/b`."""
    return {name: value.value for name, value in metadata_values(found, key).items()}
