"""The code location: assets, checks, jobs, sensors and schedules wired to resources. Nothing is computed here.

torch is not imported by this module or by anything that it imports, so that the daemon and the webserver load fast.
"""

from collections.abc import Mapping

import dagster as dg

from tamiyo_assets.assets.bundle import BUNDLE_ASSETS
from tamiyo_assets.assets.features import FEATURE_ASSETS
from tamiyo_assets.assets.graphs import GRAPH_ASSETS
from tamiyo_assets.assets.model import MODEL_ASSETS
from tamiyo_assets.assets.normalization import NORM_ASSETS
from tamiyo_assets.assets.registries import REGISTRY_ASSETS
from tamiyo_assets.assets.telemetry import TELEMETRY_ASSETS
from tamiyo_assets.assets.upstream import UPSTREAM
from tamiyo_assets.checks import CHECKS
from tamiyo_assets.ingest import Ingest
from tamiyo_assets.jobs import JOBS
from tamiyo_assets.resources.alerts import AlertOutbox
from tamiyo_assets.resources.exports import Exports
from tamiyo_assets.resources.features import FeatureSource
from tamiyo_assets.resources.tables import TableStore
from tamiyo_assets.schedules import registry_refresh_schedule
from tamiyo_assets.sensors import SENSORS
from tamiyo_assets.settings import Settings, resolve
from tamiyo_assets.upkeep import maintenance_job, maintenance_schedule
from tamiyo_assets.versions import Versions


def build_resources(settings: Settings) -> dict[str, object]:
    """What assets, checks and sensors are handed, all of one home and one exports root."""
    tables = TableStore(settings.home)
    exports = Exports(settings.exports, is_sample=settings.exports_are_sample)
    return {
        "settings": settings,
        "tables": tables,
        "exports": exports,
        "ingest": Ingest(settings.home, exports, tables, settings.limits),
        "source": FeatureSource(settings.home, tables),
        "versions": Versions(settings.home, tables),
        "alerts": AlertOutbox(settings.home, settings.alert_webhook),
    }


def build_definitions(
    settings: Settings | None = None,
    *,
    resources: Mapping[str, object] | None = None,
    loggers: Mapping[str, dg.LoggerDefinition] | None = None,
) -> dg.Definitions:
    """The definitions of one home; tests override the settings or single resources."""
    found = build_resources(settings or resolve())
    return dg.Definitions(
        assets=[
            *UPSTREAM,
            *REGISTRY_ASSETS,
            *NORM_ASSETS,
            *FEATURE_ASSETS,
            *GRAPH_ASSETS,
            *MODEL_ASSETS,
            *BUNDLE_ASSETS,
            *TELEMETRY_ASSETS,
        ],
        asset_checks=[*CHECKS],
        jobs=[*JOBS, maintenance_job],
        sensors=[*SENSORS],
        schedules=[registry_refresh_schedule, maintenance_schedule],
        resources={**found, **(resources or {})},
        loggers=loggers,
        executor=dg.in_process_executor,  # a step is a tenth of a second; a process each would cost seconds
    )


defs = build_definitions()
