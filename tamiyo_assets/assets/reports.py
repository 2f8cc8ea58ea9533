"""Report an asset's table: column schema, rows, whether it changed, and for how many training runs."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg
import pyarrow as pa

from lake.store.versions import TableVersion, Versions
from schemas.contracts.table import PROVENANCE, Table
from schemas.derived.tables import DECLARED
from schemas.errors import RowsRefused
from tamiyo_assets.assets.problems import Problem, check_result

COLUMNS = "dagster/column_schema"
ROWS = "dagster/row_count"
DATA_VERSION = "dagster/data_version"
INPUT_VERSION = "dagster/input_data_version/"
CHANGED = "changed"
SCHEMA = "schema"
_RUNS_SHOWN = 20

# Steps run one after another, those of the highest priority first: coverage and its checks (0), then what takes seconds, then
# what takes minutes, last what shows the rest
AFTER_COVERAGE = {"dagster/priority": "-5"}
SLOW = {"dagster/priority": "-10"}
LAST = {"dagster/priority": "-20"}


def key_of(name: str) -> dg.AssetKey:
    """Return the asset key of a table name: `tolaria.system_state` -> `tolaria/system_state`."""
    return dg.AssetKey(name.split("."))


def table_of(key: dg.AssetKey) -> str:
    """Return the table name of an asset key."""
    return ".".join(key.path)


def kinds_of(key: dg.AssetKey, *kinds: str) -> set[str]:
    """Return the kinds of an asset, with its schema as one of them.

    The UI's graph names a node by the last part of its key alone: without the schema beside it, `urza/blueprint`,
    `features/blueprint` and `registries/blueprint` look the same.
    """
    return {key.path[0], *kinds}


def contract_columns(table: Table) -> dg.TableSchema:
    """Return the column schema of a contract table, with units, ranges and the key's constraints, from its declaration."""
    columns = []
    for field in table.arrow_schema:
        declared = table.column.get(field.name)
        columns.append(
            dg.TableColumn(
                name=field.name,
                type=str(field.type),
                description=_described(declared.description, declared.unit) if declared else PROVENANCE.get(field.name),
                constraints=dg.TableColumnConstraints(
                    nullable=declared is None or declared.nullable, other=_bounds(table, field.name)
                ),
            )
        )
    return dg.TableSchema(columns)


def derived_columns(name: str) -> dg.TableSchema:
    """Return the column schema of the derived table `name`, from its declaration."""
    table = DECLARED[name]
    return dg.TableSchema(
        [
            dg.TableColumn(
                name=column.name,
                type=str(column.type),
                description=column.description,
                constraints=dg.TableColumnConstraints(
                    nullable=column.nullable,
                    unique=(column.name,) in table.keys,
                    other=[*(["part of the key"] if column.name in table.identity and table.keys else []), *column.demands],
                ),
            )
            for column in table.columns
        ]
    )


def schema_specs(names: Iterable[str]) -> list[dg.AssetCheckSpec]:
    """Return specs of the check `schema` of tables, for the step that writes them."""
    description = "Rows keep the table's schema; if some do not, none is committed and the step fails."
    return [dg.AssetCheckSpec(SCHEMA, asset=key_of(name), description=description) for name in names]


class Reporter:
    """Makes the results of one step, each compared with what the asset reported before.

    A result is yielded for every selected asset, changed or not: an output that is left unyielded makes Dagster skip everything
    downstream of it.
    """

    def __init__(self, context: dg.AssetExecutionContext, versions: Versions) -> None:
        """Read the newest materialization of every selected asset of the step, and the versions that were last published."""
        records = context.instance.get_asset_records([*context.selected_asset_keys])
        events = {record.asset_entry.asset_key: record.asset_entry.last_materialization for record in records}
        self._context = context
        self._reported = {key: (event.tags or {}).get(DATA_VERSION) for key, event in events.items() if event is not None}
        self._versions = versions

    def table(self, version: TableVersion, metadata: Mapping[str, Any] | None = None) -> dg.MaterializeResult[None]:
        """Return the result of a table: rows, and which training runs changed since the versions were last published."""
        found: dict[str, Any] = {ROWS: version.rows}
        if version.runs:
            changed = self._versions.changed_runs(version)
            found |= {"training_runs": len(version.runs), "runs_changed": len(changed)}
            found |= {"changed_runs": ", ".join(changed[:_RUNS_SHOWN])} if changed else {}
        # every asset downstream repeats it in its event, twice a run: the first half is enough to tell contents apart
        return self.asset(key_of(version.name), version.digest[:32], found | dict(metadata or {}))

    def schema(self, name: str, refused: Iterable[Problem] = ()) -> Iterator[dg.AssetCheckResult]:
        """Yield the result of the check `schema` of a table, if it is selected: passed unless rows were refused."""
        check = dg.AssetCheckKey(key_of(name), SCHEMA)
        if check in self._context.selected_asset_check_keys:
            yield check_result([*refused], "kept", check=check)

    def refused(self, error: RowsRefused) -> Iterator[dg.AssetCheckResult]:
        """Yield the failed check `schema` of the table whose rows were refused; the step raises `error` afterwards."""
        yield from self.schema(error.table, [Problem(rule, text) for rule, text in error.broken.items()])

    def written(
        self, name: str, rows: pa.Table, metadata: Mapping[str, Any] | None = None
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        """Replace a derived table by `rows` and yield its results.

        Raises RowsRefused, after the failed check, if the rows are refused.
        """
        try:
            version = self._versions.write(name, rows)
        except RowsRefused as error:
            yield from self.refused(error)
            raise
        yield self.table(version, metadata)
        yield from self.schema(name)

    def asset(self, key: dg.AssetKey, data_version: str, metadata: Mapping[str, Any]) -> dg.MaterializeResult[None]:
        """Return the result of an asset whose content has that data version.

        Metadata of a result is stored twice, with the step's output and with the materialization; metadata given to the context
        is stored with the materialization only.
        """
        changed = self._reported.get(key) != data_version
        self._context.add_asset_metadata({**metadata, CHANGED: changed}, asset_key=key)
        return dg.MaterializeResult(asset_key=key, data_version=dg.DataVersion(data_version))


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
