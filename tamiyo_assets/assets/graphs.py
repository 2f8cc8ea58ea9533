"""Encode the graph dataset: every training state as a typed graph, one memory-mapped shard per bucket."""

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from dagster import ResourceParam

from gnn.code_version import code_version
from gnn.registry.refresh import Registries
from gnn.registry.refresh import load as load_registries
from lake.builds import pinned_graphs
from lake.durable.publish import ensure_dir, lock, publish_file
from lake.settings import Settings
from lake.store.increments import ALL_BUCKETS, batches_of
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.artifacts import REGISTRIES
from schemas.buckets import bucket_of
from schemas.features import GROUPS
from tamiyo_assets.assets.features import BATCH_ROWS, feature_increments
from tamiyo_assets.assets.pictures import picture_metadata
from tamiyo_assets.assets.registries import registries_directory, registry_key
from tamiyo_assets.assets.reports import ROWS, SLOW, Reporter, key_of, kinds_of

if TYPE_CHECKING:
    from gnn.encode.build import FeatureSet
    from gnn.graph.dataset import Shard

DATASET: Final = key_of("graphs.dataset")
MADE: Final = "made"


@dg.asset(
    key=DATASET,
    deps=[*(key_of(group.table) for group in GROUPS), *(registry_key(name) for name in REGISTRIES)],
    group_name="graphs",
    kinds=kinds_of(DATASET, "pytorch"),
    owners=["team:tamiyo"],
    op_tags=SLOW,
    description="Every training state as a graph of six node types and eleven relations, memory-mapped for training.",
)
def dataset(
    context: dg.AssetExecutionContext,
    settings: ResourceParam[Settings],
    tables: ResourceParam[TableStore],
    versions: ResourceParam[Versions],
) -> dg.MaterializeResult[None]:
    """Encode the runs whose features or registry indices changed; copy the others of their buckets. Without states: none."""
    from gnn.graph.dataset import GraphDataset, current_shards

    home = settings.home
    build = GraphBuild(home, tables, load_registries(registries_directory(home)))
    for bucket, encoded, copied in build.refresh():
        context.log.info(f"bucket {bucket}: {encoded} training runs encoded, {copied} copied")
    graphs = GraphDataset.open(home)
    headers = [shard.header for shard in graphs.shards]
    rows = {family: sum(header.rows[family] for header in headers) for family in (group.family for group in GROUPS)}
    digest = hashlib.sha256(json.dumps(current_shards(home), sort_keys=True).encode()).hexdigest()
    return Reporter(context, versions).asset(
        DATASET,
        digest,
        {
            ROWS: len(graphs),
            "path": dg.MetadataValue.path(home / "graphs"),
            "rows": dg.MetadataValue.json(rows),
            "runs_encoded": build.encoded,
            **(_newest(home, digest) if len(graphs) else {}),
            "bytes": sum(record.size for header in headers for record in header.files.values()),
        },
    )


class GraphBuild:
    """The incremental build of one home's graph dataset, for all its run buckets or some of them."""

    def __init__(self, home: Path, tables: TableStore, registries: Registries, buckets: Collection[int] = ALL_BUCKETS) -> None:
        """Prepare to encode the rows of the feature tables with `registries`."""
        self._home, self._tables, self._registries = home, tables.held(), registries
        self._buckets = [str(bucket) for bucket in sorted(buckets)]
        self._features: Mapping[str, Any] = feature_increments(self._tables, buckets).load()
        self._graphs = home / "graphs"
        self.encoded = 0

    def refresh(self) -> Iterator[tuple[int, int, int]]:
        """Write the shards of buckets that changed and publish the set; yield bucket, runs encoded and runs copied."""
        from gnn.encode.held import HELD
        from gnn.graph.dataset import current_shards

        ensure_dir(self._graphs)
        with ExitStack() as held:
            for bucket in self._buckets:
                held.enter_context(lock(self._graphs / f".lock.{bucket}"))
            wanted: dict[str, dict[str, str]] = {bucket: {} for bucket in self._buckets}
            for run, made in self._features.items():
                if made["last_ns"]:
                    wanted[str(bucket_of(run))][run] = made["inputs"]
            current, chosen, records = current_shards(self._home), {}, []
            for bucket, runs in wanted.items():
                record = _Record.read(self._graphs, bucket)
                stale = self._stale(runs, record)
                keys = HELD.empty_table()
                if stale or not self._holds(bucket, current.get(bucket), [*runs]):
                    if not runs:
                        continue
                    chosen[bucket], encoded, keys = self._shard(bucket, current.get(bucket), sorted(runs), stale)
                    self.encoded += encoded
                    yield int(bucket), encoded, len(runs) - encoded
                elif runs:
                    chosen[bucket] = current[bucket]
                if stale or record.inputs.keys() != runs.keys():
                    records.append(self._renewed(record, runs, keys, stale))
            self._publish(chosen)
            for record in records:
                record.write(self._graphs)

    def _publish(self, chosen: Mapping[str, str]) -> None:
        """Publish these buckets' current shards, and remove their older ones."""
        from gnn.graph.dataset import CURRENT, current_shards

        with lock(self._graphs / ".lock"):
            current = current_shards(self._home)
            now = {**{bucket: digest for bucket, digest in current.items() if bucket not in self._buckets}, **chosen}
            if now != current:
                publish_file(self._graphs / CURRENT, (json.dumps(now, sort_keys=True) + "\n").encode("ascii"))
            self._drop_older(chosen)

    def _stale(self, wanted: Mapping[str, str], record: "_Record") -> set[str]:
        """Return runs whose features, registry indices or code differ from those that they were encoded with."""
        from gnn.encode.held import index_digests

        indices = index_digests(record.held, self._registries)
        now = {run: self._inputs(features, indices.get(run, "")) for run, features in wanted.items()}
        return {run for run, inputs in now.items() if record.inputs.get(run) != inputs}

    def _inputs(self, features: str, indices: str) -> str:
        return hashlib.sha256(f"{code_version()} {features} {indices}".encode()).hexdigest()

    def _holds(self, bucket: str, digest: str | None, runs: Sequence[str]) -> bool:
        """Return whether the current shard of a bucket is sound and holds exactly those runs."""
        shard = self._open(bucket, digest)
        return shard is not None and shard.run_ids == sorted(runs)

    def _open(self, bucket: str, digest: str | None) -> "Shard | None":
        from gnn.graph.dataset import Shard
        from schemas.errors import FeatureError

        if digest is None:
            return None
        try:
            return Shard.open(self._graphs / bucket / digest)
        except FeatureError:  # made for another declaration, or damaged: it is made again from the tables
            return None

    def _shard(self, bucket: str, digest: str | None, runs: list[str], stale: set[str]) -> tuple[str, int, pa.Table]:
        """Write the shard of a bucket: stretches of unchanged runs copied, the others encoded in batches."""
        from gnn.encode.held import HELD
        from gnn.graph.files import ShardWriter

        old = self._open(bucket, digest)
        place = {run: number for number, run in enumerate(old.run_ids)} if old is not None else {}
        writer, held, encoded = ShardWriter(self._graphs / bucket), [HELD.empty_table()], 0
        try:
            for copied, stretch in _stretches(runs, {run for run in place if run not in stale}):
                if copied and old is not None:
                    for first, last in _consecutive([place[run] for run in stretch]):
                        writer.copy(old.part(first, last))
                    continue
                for features, keys in self._encode(stretch):
                    writer.add(features)
                    held.append(keys)
                encoded += len(stretch)
            directory, _ = writer.finish()
        finally:
            writer.abandon()
        return directory.name, encoded, pa.concat_tables(held)

    def _encode(self, runs: list[str]) -> Iterator[tuple["FeatureSet", pa.Table]]:
        """Yield features of some runs, read from the feature tables, and the registry keys that they hold."""
        from gnn.encode.build import encode_all
        from gnn.encode.encoding import Vocabularies
        from gnn.encode.held import held_keys
        from gnn.join.tables import join_of, value_columns

        for batch in batches_of(runs, {run: self._features[run]["rows"] for run in runs}, BATCH_ROWS):
            rows = {g.table: self._tables.read(g.table, runs=batch, columns=value_columns(g)) for g in GROUPS}
            joined = join_of(rows)
            yield encode_all(joined, Vocabularies(self._registries)), held_keys(joined)

    def _renewed(self, record: "_Record", runs: Mapping[str, str], keys: pa.Table, stale: set[str]) -> "_Record":
        """Return the record of a bucket's new shard; `keys` are those of the runs that were encoded."""
        from gnn.encode.held import index_digests

        # runs of a damaged shard were encoded again too, without being stale
        encoded = set(keys.column("training_run_id").unique().to_pylist())
        kept = pa.array(sorted(runs.keys() - stale - encoded), pa.string())
        old = record.held.filter(pc.is_in(record.held.column("training_run_id"), value_set=kept))
        whole = pa.concat_tables([old, keys])
        indices = index_digests(whole, self._registries)
        inputs = {run: self._inputs(features, indices.get(run, "")) for run, features in runs.items()}
        return _Record(record.bucket, inputs, whole)

    def _drop_older(self, chosen: Mapping[str, str]) -> None:
        """Remove shards that are neither current nor used by a build, and leftovers of killed builds.

        The caller holds the locks. A shard that is open stays readable until it is closed.
        """
        kept = {(bucket, digest) for pin in (chosen, *pinned_graphs(self._home)) for bucket, digest in pin.items()}
        for path in (path for bucket in self._buckets for path in self._graphs.glob(f"{bucket}/*")):
            if path.is_dir() and (path.parent.name, path.name) not in kept:
                shutil.rmtree(path)


@dataclass(frozen=True)
class _Record:
    """What a bucket's shard was made with: the inputs of each run, and the registry keys that its graphs hold."""

    bucket: str
    inputs: Mapping[str, str]
    held: pa.Table

    @classmethod
    def read(cls, graphs: Path, bucket: str) -> "_Record":
        """Read the record of the last build; return an empty one, so that all is encoded anew, if it is missing or damaged."""
        from gnn.encode.held import HELD

        try:
            found = json.loads((graphs / MADE / f"{bucket}.json").read_bytes())
            with pa.memory_map(str(graphs / MADE / f"{bucket}.arrow")) as source, pa.ipc.open_file(source) as reader:
                held = reader.read_all()
        except (FileNotFoundError, ValueError):  # ArrowInvalid is a ValueError
            return cls(bucket, {}, HELD.empty_table())
        return cls(bucket, found if isinstance(found, dict) else {}, held)

    def write(self, graphs: Path) -> None:
        """Publish the record. The inputs are written last, since the keys are valid only with them."""
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_file(buffer, self.held.schema) as writer:
            writer.write_table(self.held.combine_chunks())
        publish_file(graphs / MADE / f"{self.bucket}.arrow", bytes(buffer.getvalue()))
        publish_file(graphs / MADE / f"{self.bucket}.json", json.dumps(self.inputs).encode())


def _stretches(runs: Sequence[str], sound: set[str]) -> Iterator[tuple[bool, list[str]]]:
    """Split runs into stretches; yield (whether the stretch is sound and can be copied, its runs)."""
    stretch: list[str] = []
    for run in runs:
        if stretch and (run in sound) != (stretch[-1] in sound):
            yield stretch[0] in sound, stretch
            stretch = []
        stretch.append(run)
    if stretch:
        yield stretch[0] in sound, stretch


def _consecutive(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the bounds of each stretch of consecutive numbers."""
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield first, last + 1
            first = number
        last = number
    yield first, last + 1


def _newest(home: Path, digest: str) -> dict[str, dg.MetadataValue]:
    """Return a picture of the newest packet's graph."""
    from gnn.graph.dataset import GraphDataset
    from gnn.graph.picture import picture_of

    graphs = GraphDataset.open(home)
    alt = "the newest packet's graph"
    draw = partial(picture_of, graphs, graphs.find("newest")[0])
    return picture_metadata(home, "graphs.dataset", "newest_graph", digest, draw, alt, thumbnail=False)


GRAPH_ASSETS = (dataset,)
