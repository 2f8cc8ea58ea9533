"""All definitions as one JSON object, to compare with the committed `definitions.json`.

`python -m tests.tamiyo_assets.snapshot` writes the file anew after an intended change; the diff of it belongs to the change.
"""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from tamiyo_assets.definitions import build_definitions

SNAPSHOT = Path(__file__).with_name("definitions.json")


def described(definitions: dg.Definitions) -> dict[str, Any]:
    """Assets, checks, jobs, sensors and schedules by name, as JSON can hold them.

    The severity of a check is no part of a definition: each result states its own.
    """
    graph, repository = definitions.resolve_asset_graph(), definitions.get_repository_def()
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    return {
        "assets": {_key(node.key): _asset(node) for node in graph.asset_nodes},
        "checks": {
            _check(key): {"blocking": graph.get(key).blocking, "description": graph.get(key).description}
            for key in graph.asset_check_keys
        },
        "jobs": {job.name: _job(job) for job in jobs},
        "sensors": {
            sensor.name: {
                "default_status": sensor.default_status.value,
                "minimum_interval_seconds": sensor.minimum_interval_seconds,
                "jobs": sorted(target.job_name for target in sensor.targets),
            }
            for sensor in repository.sensor_defs
        },
        "schedules": {
            schedule.name: {
                "cron": schedule.cron_schedule,
                "timezone": schedule.execution_timezone,
                "default_status": schedule.default_status.value,
                "job": schedule.job_name,
            }
            for schedule in repository.schedule_defs
        },
    }


def _key(key: dg.AssetKey) -> str:
    return key.to_user_string()


def _check(key: dg.AssetCheckKey) -> str:
    return f"{_key(key.asset_key)}:{key.name}"


def _asset(node: Any) -> dict[str, Any]:
    return {
        "group": node.group_name,
        "kinds": sorted(node.kinds),
        "owners": list(node.owners),
        "tags": {name: value for name, value in node.tags.items() if not name.startswith("dagster/")},
        "deps": sorted(_key(key) for key in node.parent_keys),
        "op_tags": dict(node.assets_def.op.tags) if node.is_executable else {},
        "partitioned": node.is_partitioned,
    }


def _job(job: dg.JobDefinition) -> dict[str, Any]:
    layer = job.asset_layer
    return {
        "assets": sorted(_key(key) for key in layer.selected_asset_keys),
        "checks": sorted(_check(key) for key in layer.asset_graph.asset_check_keys),
        "tags": dict(job.tags),
    }


def text(definitions: dg.Definitions) -> str:
    """The snapshot as it is committed."""
    return json.dumps(described(definitions), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SNAPSHOT.write_text(text(build_definitions()), encoding="utf-8")
