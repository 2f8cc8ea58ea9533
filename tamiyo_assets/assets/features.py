"""Build the feature tables: join as of each packet's time, for training runs whose inputs have changed."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from dagster import ResourceParam

from gnn.code_version import code_version
from lake.retirement import retired_runs
from lake.store.increments import ALL_BUCKETS, Increments, batches_of, by_bucket
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.buckets import bucket_of
from schemas.derived.features import DANGLING_TABLE
from schemas.derived.tables import DERIVED
from schemas.errors import RowsRefused
from schemas.features import GROUPS, NodeType, Relation
from tamiyo_assets.assets.reports import COLUMNS, Reporter, derived_columns, key_of, kinds_of, schema_specs
from tamiyo_assets.assets.upstream import RETIRED

if TYPE_CHECKING:
    from gnn.join.inputs import Reach

FEATURE_TABLES: Final = (*(group.table for group in GROUPS), DANGLING_TABLE)
STATES: Final = "tolaria.system_state"
BATCH_ROWS: Final = 300_000  # rows of runs' own tables that are joined at once
_OWNER: Final = ["team:tamiyo"]
_FROM: Final = {group.table: sorted(group.source_tables | {STATES}) for group in GROUPS}


def sources_of(group: NodeType | Relation) -> list[dg.AssetKey]:
    """Return the keys of the contract tables that the group's features are read from."""
    return [key_of(name) for name in _FROM[group.table]]


@dg.multi_asset(
    name="features",
    specs=[
        *(
            dg.AssetSpec(
                key_of(group.table),
                deps=[*sources_of(group), RETIRED],
                skippable=True,
                group_name="features",
                kinds=kinds_of(key_of(group.table), "deltalake"),
                owners=_OWNER,
                description=f"{group.doc} Raw values, NULL if missing, each with its mask.",
                metadata={COLUMNS: derived_columns(group.table)},
            )
            for group in GROUPS
        ),
        dg.AssetSpec(
            key_of(DANGLING_TABLE),
            deps=[RETIRED, *(key_of(name) for name in sorted({name for names in _FROM.values() for name in names}))],
            skippable=True,
            group_name="features",
            kinds=kinds_of(key_of(DANGLING_TABLE), "deltalake"),
            owners=_OWNER,
            description="References of packets and of Urza's graphs that name nothing.",
            metadata={COLUMNS: derived_columns(DANGLING_TABLE)},
        ),
    ],
    check_specs=schema_specs(FEATURE_TABLES),
    can_subset=True,
)
def features(
    context: dg.AssetExecutionContext, tables: ResourceParam[TableStore], versions: ResourceParam[Versions]
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Join the runs whose inputs changed, in batches; the other runs' rows stay as they are."""
    reporter = Reporter(context, versions)
    try:
        for done, of in FeatureBuild(tables, versions).refresh():
            context.log.info(f"{done} of {of} training runs joined")
    except RowsRefused as error:
        yield from reporter.refused(error)
        raise
    for name in FEATURE_TABLES:
        if key_of(name) in context.selected_asset_keys:
            yield reporter.table(versions.of(name))
        yield from reporter.schema(name)


def feature_increments(tables: TableStore, buckets: Collection[int] = ALL_BUCKETS) -> Increments:
    """Return the record of which inputs each run's features were made from, and how many rows of groups it has."""
    return Increments("features", tables, FEATURE_TABLES, buckets)


class FeatureBuild:
    """The incremental build of one home's feature tables, for all training runs or those of some run buckets."""

    def __init__(self, tables: TableStore, versions: Versions, buckets: Collection[int] = ALL_BUCKETS) -> None:
        """Read which runs there are, what each was made from, and the present rows of other systems."""
        from gnn.join.inputs import OF_RUN, TIMED, TimedRows

        self._tables = tables
        self._own = {name: versions.of(name) for name in OF_RUN}
        retired = retired_runs(tables)
        self._runs = [run for run in self._own[STATES].runs if run not in retired and bucket_of(run) in buckets]
        self._others = {name: _timed(tables, name) for name in TIMED}
        self._timed: TimedRows = TimedRows(self._others)
        self._increments = feature_increments(tables, buckets)

    def refresh(self) -> Iterator[tuple[int, int]]:
        """Join what changed, one batch at a time; after each, yield the runs done and the runs in all."""
        known = self._increments.load()
        known = self._without_gone(known, sorted(known.keys() - set(self._runs)))
        stale = by_bucket(self._stale(known))
        self._make_tables()
        done = 0
        size = {run: sum(version.run(run).rows for version in self._own.values()) for run in stale}
        for batch in batches_of(stale, size, BATCH_ROWS):
            known |= self._join(batch)
            self._increments.save(known, batch)
            done += len(batch)
            yield done, len(stale)

    def _stale(self, known: Mapping[str, Any]) -> list[str]:
        """Return the runs whose inputs differ from the recorded ones."""
        from gnn.join.inputs import Reach

        runs = [run for run in self._runs if run in known]
        reaches = [Reach(tuple(r["blueprints"]), r["first_ns"], r["last_ns"], r["bare"]) for r in (known[run] for run in runs)]
        now = dict(zip(runs, self._digests(runs, reaches), strict=True))
        return [run for run in self._runs if run not in now or now[run] != known[run]["inputs"]]

    def _digests(self, runs: Sequence[str], reaches: Sequence["Reach"]) -> list[str]:
        """Return one digest (hex) per run of all that its features read: its own rows, other systems' rows, and code."""
        found = []
        for run, others in zip(runs, self._timed.digests(reaches), strict=True):
            own = {name: version.run(run).digest for name, version in self._own.items()}
            found.append(hashlib.sha256(json.dumps([code_version(), own, others], sort_keys=True).encode()).hexdigest())
        return found

    def _join(self, batch: list[str]) -> dict[str, Any]:
        """Join and commit the runs of a batch; return what each was made from."""
        from gnn.join.inputs import Reach, reach_of
        from gnn.join.join import join
        from gnn.join.metadata import Metadata
        from gnn.join.sources import Sources
        from gnn.join.tables import feature_tables

        rows = {name: self._tables.read(name, runs=batch) for name in self._own}
        named = pa.concat_arrays([_named(rows[STATES]), _named(rows["kasmina.seed_state"])]).unique()
        metadata = Metadata({name: _of_blueprints(t, named) for name, t in self._others.items()}, self._timed.placeholders)
        joined, _ = join(metadata, Sources(rows), {})
        rows_of: Counter[str] = Counter()
        for name, table in feature_tables(joined).items():
            self._tables.write(name, table, runs=batch)
            if name != DANGLING_TABLE:
                counted = pc.value_counts(table.column("training_run_id"))
                rows_of.update(dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True)))
        # a run whose packets are completion markers alone has no graph: it reaches nothing, and is not joined again for that
        reaches = dict.fromkeys(batch, Reach((), 0, 0, False)) | reach_of(joined)
        digests = self._digests(batch, [reaches[run] for run in batch])
        made = zip(batch, digests, strict=True)
        return {run: vars(reaches[run]) | {"inputs": digest, "rows": rows_of[run]} for run, digest in made}

    def _without_gone(self, known: dict[str, Any], gone: list[str]) -> dict[str, Any]:
        """Return what is left of the record once the rows of runs that are gone are removed."""
        if not gone:
            return known
        for name in FEATURE_TABLES:
            self._tables.write(name, DERIVED[name].empty_table(), runs=gone)
        left = {run: entry for run, entry in known.items() if run not in gone}
        self._increments.save(left, gone)
        return left

    def _make_tables(self) -> None:
        """Create the tables that were never written, without rows, so that readers find them.

        Rows are appended, since the run of another bucket may have written the first ones meanwhile.
        """
        for name in FEATURE_TABLES:
            if not self._tables.exists(name):
                self._tables.write(name, DERIVED[name].empty_table(), append=True)


def _timed(tables: TableStore, name: str) -> pa.Table:
    """Return a table of another system; for metrics, the table that the join reads."""
    if name != "telemetry.metric":
        return tables.read(name)
    from gnn.join.derived import CONSERVATIVE

    batches = (pa.Table.from_batches([batch]) for batch in tables.batches(name))
    found = [batch.filter(pc.equal(batch.column("name"), CONSERVATIVE)) for batch in batches]
    return pa.concat_tables([tables.schema(name).empty_table(), *found])


def _named(rows: pa.Table) -> pa.Array:
    return rows.column("blueprint_id").combine_chunks().unique()


def _of_blueprints(rows: pa.Table, names: pa.Array) -> pa.Table:
    if "blueprint_id" not in rows.column_names:
        return rows
    return rows.filter(pc.is_in(rows.column("blueprint_id"), value_set=names))


FEATURE_ASSETS = (features,)
