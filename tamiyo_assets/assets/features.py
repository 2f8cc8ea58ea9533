"""Feature tables and coverage: what the graph's tensors are made of, and how much of it was measured."""

import re
from collections.abc import Iterator

import dagster as dg
from dagster import ResourceParam

from gnn.coverage.ratios import mean_over_keys, ratios
from lake.settings import Settings
from lake.store.versions import Versions
from schemas.contracts import TABLES
from schemas.derived.tables import DERIVED
from schemas.features import GROUPS, NodeType, Relation
from tamiyo_assets.assets.pictures import picture_metadata
from tamiyo_assets.assets.reports import COLUMNS, Reporter, derived_columns, feature_columns, key_of, kinds_of
from tamiyo_assets.resources.features import FeatureSource

_OWNER = ["team:tamiyo"]
_TABLE_NAME = re.compile(r"[a-z]+\.[a-z_]+")


def sources_of(group: NodeType | Relation) -> list[dg.AssetKey]:
    """The contract tables that the declaration names as sources of the group's features."""
    named = {name for feature in group.features for name in _TABLE_NAME.findall(feature.source) if name in TABLES}
    return [key_of(name) for name in sorted(named | {"tolaria.system_state"})]


@dg.multi_asset(
    name="features",
    specs=[
        dg.AssetSpec(
            key_of(group.table),
            deps=sources_of(group),
            skippable=True,
            group_name="features",
            kinds=kinds_of(key_of(group.table), "deltalake"),
            owners=_OWNER,
            description=f"{group.doc} Raw values, NULL where missing, each with its mask.",
            metadata={COLUMNS: feature_columns(group)},
        )
        for group in GROUPS
    ],
    can_subset=True,
)
def features(
    context: dg.AssetExecutionContext, source: ResourceParam[FeatureSource], versions: ResourceParam[Versions]
) -> Iterator[dg.MaterializeResult[None]]:
    """One table per node type and relation."""
    selected = [(name, rows) for name, rows in source.tables().items() if key_of(name) in context.selected_asset_keys]
    reporter = Reporter(context, versions)
    for name, rows in selected:
        yield reporter.table(versions.write(name, rows))


@dg.asset(
    key=key_of("coverage.by_key"),
    deps=[key_of(group.table) for group in GROUPS],
    group_name="features",
    kinds=kinds_of(key_of("coverage.by_key"), "deltalake"),
    owners=_OWNER,
    metadata={COLUMNS: derived_columns("coverage.by_key", DERIVED["coverage.by_key"])},
    description="Per training run and feature: measured elements of all elements, and the system that sends it.",
)
def coverage_by_key(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    source: ResourceParam[FeatureSource],
    versions: ResourceParam[Versions],
) -> dg.MaterializeResult[None]:
    """Measured / elements for every key of the declaration."""
    from gnn.coverage.heatmap import heat_map

    rows = source.by_key()
    version = versions.write("coverage.by_key", rows)
    shown = picture_metadata(
        settings.home, version.name, "heat_map", version.digest, lambda: heat_map(rows), "coverage by key and training run"
    )
    mean = mean_over_keys(rows)
    figure = {"coverage": mean} if mean is not None else {}
    return Reporter(context, versions).table(version, figure | shown)


@dg.asset(
    key=key_of("coverage.by_family"),
    deps=[key_of("coverage.by_key")],
    group_name="features",
    kinds=kinds_of(key_of("coverage.by_family"), "deltalake"),
    owners=_OWNER,
    metadata={COLUMNS: derived_columns("coverage.by_family", DERIVED["coverage.by_family"])},
    description="Coverage summed over the keys of each node type and relation.",
)
def coverage_by_family(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    source: ResourceParam[FeatureSource],
    versions: ResourceParam[Versions],
) -> dg.MaterializeResult[None]:
    """Counts-weighted coverage per family."""
    from gnn.coverage.heatmap import trend

    rows = source.by_family()
    version = versions.write("coverage.by_family", rows)
    alt = "coverage by family, run by run"
    shown = picture_metadata(settings.home, version.name, "trend", version.digest, lambda: trend(rows), alt, thumbnail=False)
    figures = {row["family"]: row["ratio"] for row in ratios(rows, ["family"])}
    return Reporter(context, versions).table(version, figures | shown)


@dg.asset(
    key=key_of("coverage.gaps"),
    deps=[key_of("coverage.by_key")],
    group_name="features",
    kinds=kinds_of(key_of("coverage.gaps"), "deltalake"),
    owners=_OWNER,
    metadata={COLUMNS: derived_columns("coverage.gaps", DERIVED["coverage.gaps"])},
    description="What is missing, since when, and which system should have sent it.",
)
def coverage_gaps(
    context: dg.AssetExecutionContext, source: ResourceParam[FeatureSource], versions: ResourceParam[Versions]
) -> dg.MaterializeResult[None]:
    """One row a run and key with missing elements, with the reason."""
    rows = source.gaps()
    systems = rows.group_by("system").aggregate([("missing", "sum")]).to_pylist()
    return Reporter(context, versions).table(
        versions.write("coverage.gaps", rows),
        {"missing_by_system": dg.MetadataValue.json({row["system"]: row["missing_sum"] for row in systems})},
    )


FEATURE_ASSETS = (features, coverage_by_key, coverage_by_family, coverage_gaps)
