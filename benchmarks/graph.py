"""Measure the graph packages: `python -m benchmarks.graph [--json] [--quick]`.

Offline build, online build, a large graph, batching against PyG's own, and the peak memory of building 100,000 graphs. One
thread; CPU seconds if a shared machine would spoil wall time, with wall time beside them.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyarrow as pa
import torch

from benchmarks.graph_world import Size, known_words, metadata_tables, run_tables
from gnn.encode.build import build_features, encode_all, iter_features
from gnn.encode.encoding import Vocabularies
from gnn.graph.builder import GraphBuilder, to_batch
from gnn.graph.dataset import GraphDataset
from gnn.graph.files import write_shard
from gnn.join.join import join
from gnn.join.metadata import Metadata
from gnn.join.sources import Sources
from gnn.join.tables import feature_tables, join_of, value_columns
from schemas.features import GROUPS, NODE_TYPES, RELATIONS

GOALS = {
    "offline_graphs_per_s": ("at least", 3000.0),
    "stored_graphs_per_s": ("at least", 16000.0),
    "online_known_p50_ms": ("at most", 3.0),
    "online_new_p50_ms": ("at most", 10.0),
    "large_graph_ms": ("at most", 100.0),
    "batch_speedup": ("at least", 20.0),
    "peak_memory_mb": ("at most", 1000.0),
}


def clocked(call: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def middle(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Median wall and median CPU seconds."""
    return tuple(sorted(column)[len(pairs) // 2] for column in zip(*pairs, strict=True))  # type: ignore[return-value]


def offline() -> dict[str, float]:
    """Graphs a second on one core, at about 60 nodes and 250 edges; metadata compiled anew each time."""
    runs = [f"run-{n}" for n in range(40)]
    hosts = [f"host-{n}" for n in range(40)]
    world = metadata_tables(hosts, Size()) | run_tables(runs, hosts, range(50), Size())
    registries = known_words()
    features = build_features(world, registries=registries)
    nodes = sum(int(featured.group.ptr[-1]) for featured in features.nodes.values()) / features.size
    edges = sum(int(featured.group.ptr[-1]) for featured in features.edges.values()) / features.size
    wall, cpu = middle([clocked(lambda: build_features(world, registries=registries)) for _ in range(5)])
    return {
        "nodes_per_graph": nodes,
        "edges_per_graph": edges,
        "offline_graphs_per_s": features.size / cpu,
        "offline_graphs_per_s_wall": features.size / wall,
    }


def stored() -> dict[str, float]:
    """Graphs a second from feature tables in memory to a published shard."""
    runs = [f"run-{n}" for n in range(100)]
    hosts = [f"host-{n}" for n in range(50)]
    world = Sources(metadata_tables(hosts, Size()) | run_tables(runs, hosts * 2, range(100), Size()))
    joined, vocabularies = join(Metadata(world), world, {})[0], Vocabularies(known_words())
    whole = feature_tables(joined)
    tables = {group.table: whole[group.table].select(value_columns(group)) for group in GROUPS}

    def write(folder: str) -> None:
        write_shard(Path(folder), encode_all(join_of(tables), vocabularies))

    def written() -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as folder:
            return clocked(lambda: write(folder))

    wall, cpu = middle([written() for _ in range(5)])
    return {"stored_graphs_per_s": joined.size / cpu, "stored_graphs_per_s_wall": joined.size / wall}


def online() -> dict[str, float]:
    """Milliseconds from decoded packet to tensors: a known topology, and one that the snapshot has just learned."""
    hosts = [f"host-{n}" for n in range(50)]
    world, registries = metadata_tables(hosts, Size()), known_words()
    metadata = Metadata(world)
    packets = [run_tables(["run"], ["host-7"], range(step, step + 1), Size(), step) for step in range(150)]
    builder = GraphBuilder(metadata, registries)
    known = [clocked(lambda packet=packet: builder.build(packet)) for packet in packets][20:]  # type: ignore[misc]

    def learn(number: int) -> None:
        fresh = metadata_tables([f"new-{number}"], Size())
        first = run_tables([f"run-{number}"], [f"new-{number}"], range(1), Size())
        pairs.append(clocked(lambda: GraphBuilder(Metadata(fresh), registries).build(first)))

    pairs: list[tuple[float, float]] = []
    for number in range(30):
        learn(number)
    (known_wall, known_cpu), (new_wall, new_cpu) = middle(known), middle(pairs)
    return {
        "online_known_p50_ms": known_cpu * 1e3,
        "online_known_p50_ms_wall": known_wall * 1e3,
        "online_known_best_ms_wall": min(wall for wall, _ in known) * 1e3,
        "online_new_p50_ms": new_cpu * 1e3,
        "online_new_p50_ms_wall": new_wall * 1e3,
    }


def large() -> dict[str, float]:
    """A graph of 5,000 layers, activations and parameter groups, with its host's graph known."""
    size = Size(layers=5000, activations=5000, parameters=5000, seeds=8, connections=14_990)
    metadata = Metadata(metadata_tables(["host"], size))
    packet, vocabularies = Sources(run_tables(["run"], ["host"], range(1), size)), Vocabularies(known_words())
    wall, cpu = middle([clocked(lambda: to_batch(encode_all(join(metadata, packet, {})[0], vocabularies))) for _ in range(7)])
    return {"large_graph_ms": cpu * 1e3, "large_graph_ms_wall": wall * 1e3}


def _hetero(dataset: GraphDataset, number: int) -> Any:
    from torch_geometric.data import HeteroData

    graph, data = dataset.batch([number]), HeteroData()
    for node in NODE_TYPES:
        data[node.name].x, data[node.name].ids = graph.x[node.name], graph.ids[node.name]
    for relation in RELATIONS:
        forward = graph.edge_index[relation.triple]
        for triple, index in ((relation.triple, forward), (relation.reverse, forward.flip(0))):
            data[triple].edge_index, data[triple].edge_attr = index, graph.edge_attr[relation.triple]
    return data


def batching() -> dict[str, float]:
    """A random batch of 64 from the dataset, against `Batch.from_data_list` of the same 64 graphs; equal bit for bit."""
    from torch_geometric.data import Batch

    hosts = [f"host-{n}" for n in range(8)]
    world = metadata_tables(hosts, Size()) | run_tables([f"run-{n}" for n in range(8)], hosts, range(20), Size())
    with tempfile.TemporaryDirectory() as folder:
        features = build_features(world, registries=known_words())
        shard = write_shard(Path(folder), features)
        dataset = GraphDataset.of([shard])
        chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:64].tolist()
        graphs = [_hetero(dataset, number) for number in chosen]
        ours, theirs = dataset.batch(chosen), Batch.from_data_list(graphs)
        same = all(torch.equal(ours.x[node.name], theirs[node.name].x) for node in NODE_TYPES) and all(
            torch.equal(index, theirs[triple].edge_index)
            and torch.equal(ours.edge_attr[relation.triple], theirs[triple].edge_attr)
            for relation in RELATIONS
            for triple, index in (
                (relation.triple, ours.edge_index[relation.triple]),
                (relation.reverse, ours.edge_index[relation.triple].flip(0)),
            )
        )
        wall, cpu = middle([clocked(lambda: dataset.batch(chosen)) for _ in range(50)])
        _, other = middle([clocked(lambda: Batch.from_data_list(graphs)) for _ in range(9)])
    return {"batch_ms": cpu * 1e3, "batch_ms_wall": wall * 1e3, "pyg_batch_ms": other * 1e3} | {
        "batch_speedup": other / cpu,
        "batch_bit_identical": float(same),
    }


def _stream(graphs: int, per_block: int) -> Iterator[dict[str, pa.Table]]:
    steps = 100
    for first in range(0, graphs // steps, per_block):
        names = range(first, min(first + per_block, graphs // steps))
        yield run_tables([f"run-{n}" for n in names], [f"host-{n % 200}" for n in names], range(steps), Size(), first)


def build_many(graphs: int) -> dict[str, float]:
    """Build `graphs` graphs from a stream of runs into a dataset; peak memory of this process."""
    metadata = Metadata(metadata_tables([f"host-{n}" for n in range(200)], Size()))
    vocabularies = Vocabularies(known_words())
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = clocked(lambda: write_shard(Path(folder), iter_features(metadata, vocabularies, _stream(graphs, 10))))
        size = sum(path.stat().st_size for path in Path(folder).glob("*/*"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"graphs": float(graphs), "peak_memory_mb": peak, "many_s_wall": wall, "many_s": cpu, "dataset_mb": size / 2**20}


def peak_memory(graphs: int) -> dict[str, float]:
    """`build_many` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.graph", "--build-many", str(graphs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="10,000 graphs for the peak memory instead of 100,000")
    parser.add_argument("--build-many", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.build_many:
        print(json.dumps(build_many(arguments.build_many)))
        return
    figures: dict[str, float] = {}
    # a child process starts with the peak of its parent, so what takes most memory comes last
    for measure in (offline, online, large, batching, lambda: peak_memory(10_000 if arguments.quick else 100_000), stored):
        figures |= measure()
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        goal = f"   goal: {GOALS[name][0]} {GOALS[name][1]:g}" if name in GOALS else ""
        print(f"{name:28} {value:12,.2f}{goal}")


if __name__ == "__main__":
    main()
