"""Encode the graph dataset: every training state as a typed graph, one memory-mapped shard per bucket."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import dagster as dg
import pyarrow as pa
from dagster import ResourceParam

from gnn.code_version import code_version
from gnn.registry.refresh import Registries
from gnn.registry.refresh import load as load_registries
from lake.builds import pinned_graphs
from lake.durable.publish import ensure_dir, lock, publish_file
from lake.settings import Settings
from lake.store.increments import batches_of
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
HELD: Final = "held.arrow"


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
    build = GraphBuild(home, tables, versions, load_registries(registries_directory(home)))
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
    """The increment of the graph dataset of one home."""

    def __init__(self, home: Path, tables: TableStore, versions: Versions, registries: Registries) -> None:
        """Encode with `registries` what the feature tables hold."""
        self._home, self._tables, self._registries = home, tables.held(), registries
        self._found = [versions.of(group.table) for group in GROUPS]
        self._graphs = home / "graphs"
        self.encoded = 0

    def refresh(self) -> Iterator[tuple[int, int, int]]:
        """Write the shards of buckets that changed and publish the set; yield bucket, runs encoded and runs copied."""
        from gnn.graph.dataset import CURRENT, current_shards

        ensure_dir(self._graphs)
        with lock(self._graphs / ".lock"):
            features = feature_increments(self._tables).load()
            wanted = {run: made["inputs"] for run, made in features.items() if made["last_ns"]}
            known = self._known()
            stale = self._stale(wanted, known)
            current = current_shards(self._home)
            buckets: dict[str, list[str]] = {}
            for run in wanted:
                buckets.setdefault(str(bucket_of(run)), []).append(run)
            chosen: dict[str, str] = {}
            held: list[pa.Table] = []
            for bucket, runs in sorted(buckets.items(), key=lambda item: int(item[0])):
                changed = [run for run in runs if run in stale]
                if not changed and self._holds(bucket, current.get(bucket), runs):
                    chosen[bucket] = current[bucket]
                    continue
                chosen[bucket], encoded, keys = self._shard(bucket, current.get(bucket), sorted(runs), stale)
                held.append(keys)
                self.encoded += encoded
                yield int(bucket), encoded, len(runs) - encoded
            if chosen != current:
                publish_file(self._graphs / CURRENT, (json.dumps(chosen, sort_keys=True) + "\n").encode("ascii"))
            self._note(wanted, held, stale)
            self._drop_older(chosen)

    def _stale(self, wanted: Mapping[str, str], known: Mapping[str, str]) -> set[str]:
        """Return runs whose features, registry indices or code differ from those that they were encoded with."""
        from gnn.encode.held import index_digests

        self._held = self._read_held()
        indices = index_digests(self._held, self._registries)
        now = {run: self._inputs(features, indices.get(run, "")) for run, features in wanted.items()}
        return {run for run, inputs in now.items() if known.get(run) != inputs}

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
        except FeatureError:  # of another declaration, or damaged: made again from the tables
            return None

    def _shard(self, bucket: str, digest: str | None, runs: list[str], stale: set[str]) -> tuple[str, int, pa.Table]:
        """Write the shard of a bucket: stretches of unchanged runs copied, the others encoded in batches."""
        from gnn.encode.held import HELD as SCHEMA
        from gnn.graph.files import ShardWriter

        old = self._open(bucket, digest)
        place = {run: number for number, run in enumerate(old.run_ids)} if old is not None else {}
        writer, held, encoded = ShardWriter(self._graphs / bucket), [SCHEMA.empty_table()], 0
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

        size = {run: sum(version.run(run).rows for version in self._found) for run in runs}
        for batch in batches_of(runs, size, BATCH_ROWS):
            rows = {g.table: self._tables.read(g.table, runs=batch, columns=value_columns(g)) for g in GROUPS}
            joined = join_of(rows)
            yield encode_all(joined, Vocabularies(self._registries)), held_keys(joined)

    def _known(self) -> dict[str, str]:
        """Return what each run was encoded with, as of the last build of this dataset."""
        try:
            found = json.loads((self._graphs / "inputs.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _read_held(self) -> pa.Table:
        from gnn.encode.held import HELD as SCHEMA

        try:
            with pa.memory_map(str(self._graphs / HELD)) as source, pa.ipc.open_file(source) as reader:
                return reader.read_all()
        except (FileNotFoundError, pa.ArrowInvalid):
            return SCHEMA.empty_table()

    def _note(self, wanted: Mapping[str, str], held: list[pa.Table], stale: set[str]) -> None:
        """Remember what the shards were made with, once they are published."""
        import pyarrow.compute as pc

        from gnn.encode.held import index_digests

        if not stale and self._known().keys() == wanted.keys():
            return
        # runs of a damaged shard were encoded again too, without being stale
        encoded = {run for keys in held for run in keys.column("training_run_id").unique().to_pylist()}
        kept = pa.array(sorted(wanted.keys() - stale - encoded), pa.string())
        old = self._held.filter(pc.is_in(self._held.column("training_run_id"), value_set=kept))
        whole = pa.concat_tables([old, *held])
        indices = index_digests(whole, self._registries)
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_file(buffer, whole.schema) as writer:
            writer.write_table(whole.combine_chunks())
        publish_file(self._graphs / HELD, bytes(buffer.getvalue()))
        made = {run: self._inputs(features, indices.get(run, "")) for run, features in wanted.items()}
        publish_file(self._graphs / "inputs.json", json.dumps(made).encode())

    def _drop_older(self, chosen: Mapping[str, str]) -> None:
        """Remove shards that are neither current nor a build's, and what killed builds left; the caller holds the lock.

        A shard that is open stays readable until it is closed.
        """
        kept = {(bucket, digest) for pin in (chosen, *pinned_graphs(self._home)) for bucket, digest in pin.items()}
        for path in self._graphs.glob("*/*"):
            if path.is_dir() and (path.parent.name, path.name) not in kept:
                shutil.rmtree(path)


def _stretches(runs: Sequence[str], sound: set[str]) -> Iterator[tuple[bool, list[str]]]:
    """Cut runs into stretches that are sound, which can be copied, and others."""
    stretch: list[str] = []
    for run in runs:
        if stretch and (run in sound) != (stretch[-1] in sound):
            yield stretch[0] in sound, stretch
            stretch = []
        stretch.append(run)
    if stretch:
        yield stretch[0] in sound, stretch


def _consecutive(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield bounds of each stretch of numbers that follow one another."""
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
