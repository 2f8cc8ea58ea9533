"""Wire the code location: assets, checks, jobs, sensors and schedules with their resources. Nothing is computed here.

Where things are is resolved when a run or a tick begins, not when this module is imported, so that a code location that has
started finds exports that arrive later. torch is not imported by this module or by anything that it imports.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import dagster as dg

from lake.settings import Settings
from schemas.contracts import TABLES
from tamiyo_assets.assets.bundle import BUNDLE_ASSETS
from tamiyo_assets.assets.coverage import COVERAGE_ASSETS
from tamiyo_assets.assets.features import FEATURE_ASSETS
from tamiyo_assets.assets.feeds import FEED, FEEDS
from tamiyo_assets.assets.graphs import GRAPH_ASSETS
from tamiyo_assets.assets.model import MODEL_ASSETS
from tamiyo_assets.assets.normalization import NORM_ASSETS
from tamiyo_assets.assets.panel import PANEL_ASSETS
from tamiyo_assets.assets.registries import REGISTRY_ASSETS
from tamiyo_assets.assets.reports import table_of
from tamiyo_assets.assets.telemetry import TELEMETRY_ASSETS
from tamiyo_assets.assets.upstream import UPSTREAM
from tamiyo_assets.checks import CHECKS
from tamiyo_assets.jobs import JOBS
from tamiyo_assets.resources.run import run_resources
from tamiyo_assets.schedules import SCHEDULES
from tamiyo_assets.sensors import SENSORS
from tamiyo_assets.upkeep import maintenance_job

SYSTEM: Final = "tamiyo/system"


def build_definitions(
    settings: Settings | None = None,
    *,
    assets: Sequence[dg.AssetsDefinition] = (),
    resources: Mapping[str, Any] | None = None,
    loggers: Mapping[str, dg.LoggerDefinition] | None = None,
) -> dg.Definitions:
    """Return the definitions: for the given settings, or, without any, for those that each run and tick resolves.

    `assets` adds assets, such as those of a cluster. `resources` replaces resources by name, `loggers` adds loggers; tests and
    `tamiyo run` use both.
    """
    return dg.Definitions(
        assets=_tagged(
            *FEEDS,
            *UPSTREAM,
            *REGISTRY_ASSETS,
            *NORM_ASSETS,
            *FEATURE_ASSETS,
            *COVERAGE_ASSETS,
            *GRAPH_ASSETS,
            *MODEL_ASSETS,
            *BUNDLE_ASSETS,
            *TELEMETRY_ASSETS,
            *PANEL_ASSETS,
            *assets,
        ),
        asset_checks=[*CHECKS],
        jobs=[*JOBS, maintenance_job],
        sensors=[*SENSORS],
        schedules=[*SCHEDULES],
        resources={**run_resources(settings), **(resources or {})},
        loggers=loggers,
        executor=dg.in_process_executor,  # a step takes a tenth of a second; a process for each would take seconds
    )


def _tagged(*assets: dg.AssetsDefinition | dg.AssetSpec) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return the assets, each tagged with the system that answers for it: the UI and selections filter by it."""

    def tagged(spec: dg.AssetSpec) -> dg.AssetSpec:
        table = TABLES.get(table_of(spec.key))
        system = table.system if table is not None else "tamiyo"
        return spec.merge_attributes(tags={SYSTEM: spec.key.path[1] if spec.key.path[0] == FEED else system})

    return [*dg.map_asset_specs(tagged, assets)]


defs = build_definitions()
