"""What every asset reports of its table: column schema, row count, digest, and a partition's digest per training run."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pyarrow as pa

from gnn.features.table_schemas import feature_schema
from schemas.contracts.table import Table
from schemas.features import Feature, NodeType, Relation
from tamiyo_assets.versions import TableVersion

DIGEST = "tamiyo/digest"
COLUMNS = "dagster/column_schema"
ROWS = "dagster/row_count"
PARTITION_ROWS = "dagster/partition_row_count"


def key_of(name: str) -> dg.AssetKey:
    """Asset key of a table name: `tolaria.system_state` -> `tolaria/system_state`."""
    return dg.AssetKey(name.split("."))


def table_of(key: dg.AssetKey) -> str:
    """Table name of an asset key."""
    return ".".join(key.path)


def contract_columns(table: Table) -> dg.TableSchema:
    """Column schema of a contract table, with units, ranges and the key's constraints, from its declaration."""
    columns = []
    for field in table.arrow_schema:
        declared = table.column.get(field.name)
        columns.append(
            dg.TableColumn(
                name=field.name,
                type=str(field.type),
                description=_described(declared.description, declared.unit) if declared else "where the kept copy came from",
                constraints=dg.TableColumnConstraints(
                    nullable=declared is None or declared.nullable, other=_bounds(table, field.name)
                ),
            )
        )
    return dg.TableSchema(columns)


def feature_columns(group: NodeType | Relation) -> dg.TableSchema:
    """Column schema of a feature table: its identity, then each feature's raw value and mask."""
    described = {feature.name: _feature(feature) for feature in group.features}
    described |= {f"{feature.name}__mask": f"1 where {feature.name} was measured" for feature in group.features}
    return dg.TableSchema(
        [dg.TableColumn(f.name, str(f.type), described.get(f.name, "identity of the row")) for f in feature_schema(group)]
    )


def arrow_columns(schema: pa.Schema) -> dg.TableSchema:
    """Column schema of any Arrow schema."""
    return dg.TableSchema([dg.TableColumn(field.name, str(field.type)) for field in schema])


def materialized(
    context: dg.AssetExecutionContext, key: dg.AssetKey, version: TableVersion, metadata: Mapping[str, Any] | None = None
) -> dg.MaterializeResult[None]:
    """The asset's result: data version by content; for a partitioned asset each training run's own digest and rows too.

    Metadata of a result is stored with the step's output as well as with the materialization; given to the context, only there.
    """
    if context.assets_def.specs_by_key[key].partitions_def is not None and _has_partitions(context):
        for run in context.partition_keys:
            part = version.run(run)
            context.add_asset_metadata({DIGEST: part.digest, PARTITION_ROWS: part.rows}, asset_key=key, partition_key=run)
    context.add_asset_metadata({ROWS: version.rows, DIGEST: version.digest, **(metadata or {})}, asset_key=key)
    return dg.MaterializeResult(asset_key=key, data_version=dg.DataVersion(version.digest))


def _has_partitions(context: dg.AssetExecutionContext) -> bool:
    """Whether the run selects any partition: where the exports hold no training run there is none to select."""
    return bool(context.has_partition_key or context.has_partition_key_range)


def _described(description: str, unit: str) -> str:
    return f"{description} [{unit}]" if unit else description


def _bounds(table: Table, name: str) -> list[str]:
    declared = table.column.get(name)
    bounds = ["part of the key"] if name in table.key else []
    if declared and (declared.low is not None or declared.high is not None):
        bounds.append(f"{declared.low}..{declared.high}")
    if declared and declared.enum:
        bounds.append(f"enum {declared.enum}")
    return bounds


def _feature(feature: Feature) -> str:
    mandatory = "mandatory" if feature.mandatory else "optional"
    return f"{mandatory}; from {feature.system}: {feature.source}; transform {feature.transform.value}"
