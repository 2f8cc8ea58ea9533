"""Whatever arrives in whatever order, every table is that of one fresh run over all of it, and nothing is stale in Dagster."""

import gzip
import os
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard

from gnn.graph.dataset import GraphDataset
from gnn.registry.refresh import load
from lake.durable.file_digest import file_digest
from lake.exports.folders import Exports
from lake.exports.ledger import Ledger
from lake.ingest.ingest import Ingest
from lake.settings import Settings
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.artifacts import REGISTRIES
from schemas.contracts import FOLDERS, TABLES
from schemas.derived.tables import DERIVED
from schemas.features import NODE_TYPES, Kind
from tamiyo_assets.run_sensors import fail_stuck_runs
from tests.exports import part_of
from tests.tamiyo_assets.daemon import EXPORT_SENSORS, QUIET, Daemon, daemon, killed
from tests.tamiyo_assets.pipelines import run, settings

pytestmark = pytest.mark.pipeline

# Registry indices depend on the refreshes, and so does what is trained, which is seeded by what it reads: registries are
# compared by their keys, training by its examples.
TRAINED = {"training.predictions", "training.evaluation", "training.calibration"}
COMPARED = [name for name in (*TABLES, *DERIVED) if name not in TRAINED and not name.startswith(("registries.", "operations."))]
RUNS = 3  # training runs that arrive one by one
SEQUENCES = int(os.environ.get("SOAK_ARRIVALS", "10"))  # the first is in `make test`, the others in `make soak`


def lines_of(path: Path) -> list[bytes]:
    """The records of a file of lines."""
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines(keepends=True)


@dataclass
class World:
    """Pieces that may arrive: what one system says of one training run, or a file as it is; and all that ever arrived."""

    root: Path
    pieces: list[tuple[str, str, bytes]] = field(default_factory=list)  # folder, file name, bytes

    @classmethod
    def of(cls, sample: Path, root: Path) -> "World":
        """The last hosts of the sample, cut up by training run where a record names one."""
        found = cls(root)
        source = part_of(sample, root / "source")
        states = sorted((source / "tolaria/system_state").iterdir())[0]
        runs = [name for name in Counter(_run(line) for line in lines_of(states)) if name][:RUNS]
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            folder = path.parent.relative_to(source).as_posix()
            if folder in ("tolaria/system_state", "kasmina/seed_state", "tamiyo/command", "tamiyo/field_report"):
                for number, run_id in enumerate(runs):
                    part = b"".join(line for line in lines_of(path) if _run(line) == run_id)
                    found.pieces.append((folder, f"run{number}.ndjson", part))
            else:
                found.pieces.append((folder, path.name, path.read_bytes()))
        return found


def _run(line: bytes) -> str:
    """The training run that a line of JSON names."""
    _, _, after = line.partition(b'"training_run_id"')
    return after.split(b'"')[1].decode() if after else ""


class Exporter:
    """Puts pieces into an exports root in odd ways, and keeps every content by its digest."""

    def __init__(self, root: Path, world: World, chance: random.Random) -> None:
        self.root = root
        self.left = list(world.pieces)
        self.chance = chance
        self.contents: dict[str, tuple[str, bytes]] = {}
        self.number = 0
        root.mkdir()
        chance.shuffle(self.left)
        # a snapshot that arrives after keys of its own were adopted at other indices is a conflict, as it must be
        for folder, name, data in [piece for piece in self.left if piece[0].startswith("simic/")]:
            self.put(folder, name, data)
        self.left = [piece for piece in self.left if not piece[0].startswith("simic/")]

    def put(self, folder: str, name: str, data: bytes) -> None:
        path = self.root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f"{name}.tmp").write_bytes(data)
        path.with_name(f"{name}.tmp").rename(path)
        self.contents[file_digest(path)] = (name, data)

    def fresh(self, stem: str, extension: str) -> str:
        self.number += 1
        return f"{stem}-{self.number}{extension}"

    def arrive(self) -> None:
        """Some pieces arrive, one of them perhaps in two files."""
        for _ in range(min(len(self.left), self.chance.randint(1, 8))):
            folder, name, data = self.left.pop()
            lines = data.splitlines(keepends=True)
            if name.endswith(".ndjson") and len(lines) > 1 and self.chance.random() < 0.4:
                cut = self.chance.randrange(1, len(lines))
                self.put(folder, self.fresh("half", ".ndjson"), b"".join(lines[:cut]))
                self.put(folder, self.fresh("half", ".ndjson"), b"".join(lines[cut:]))
            else:
                self.put(folder, name, data)

    def here(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*") if path.is_file() and "simic" not in path.parts)

    def again(self) -> None:
        """The same records once more: under another name, or in another encoding with the order of lines changed."""
        path = self.chance.choice(self.here())
        folder = path.parent.relative_to(self.root).as_posix()
        if path.suffix == ".ndjson" and ".ndjson.gz" in FOLDERS[folder].extensions and self.chance.random() < 0.7:
            lines = lines_of(path)
            self.chance.shuffle(lines)
            self.put(folder, self.fresh("again", ".ndjson.gz"), gzip.compress(b"".join(lines), mtime=0))
        else:
            extension = "".join(path.suffixes)
            self.put(folder, self.fresh("copy", extension), path.read_bytes())

    def move(self) -> None:
        path = self.chance.choice(self.here())
        path.rename(path.with_name(self.fresh("moved", "".join(path.suffixes))))

    def delete(self) -> None:
        self.chance.choice(self.here()).unlink()


def replayed(found: Settings, exporter: Exporter, home: Path) -> Settings:
    """A fresh home after one run over all that ever arrived, in the order in which it arrived."""
    root = home / "exports"
    fresh = settings(home, root)
    entries = [entry for entry in Ledger(found.home).entries() if entry.event == "arrived"]
    scans = sorted({entry.scan for entry in entries})
    for scan in scans:
        for entry in entries:
            if entry.scan == scan:
                name, data = exporter.contents[entry.digest]
                path = root / entry.folder / (name if "simic" in entry.folder else f"{scan}-{name}")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        if scan != scans[-1]:
            Ingest(fresh.home, Exports(root), TableStore(fresh.home)).refresh()
    outcome = run(fresh)
    assert outcome.failed_steps == {}
    return fresh


def digests(found: Settings) -> dict[str, Any]:
    """What must be equal: table digests, rejects without their place, registry keys, graphs with their ids as keys."""
    tables = TableStore(found.home)
    versions = Versions(found.home, tables)
    rejects: Counter[tuple[str, str, bytes]] = Counter()
    for name in tables.names():
        if name.startswith("rejects."):
            rejects.update((name, row["reason"], row["raw"]) for row in tables.read(name).to_pylist())
    registries = load(found.home / "registries")
    keys = {name: (set(registries[name].entries), set(registries[name].retired)) for name in REGISTRIES}
    return (
        {name: versions.of(name).digest for name in COMPARED if name != "coverage.history"}
        | {"rejects": rejects, "keys": keys}
        | graphs(found)
    )


def graphs(found: Settings) -> dict[str, Any]:
    """The channels of all graphs, and the categories of their nodes by key."""
    dataset = GraphDataset.open(found.home)
    if not len(dataset):
        return {}
    registries = load(found.home / "registries")
    batch = dataset.batch([*range(len(dataset))])
    x = {name: values.clone() for name, values in batch.x.items()}
    channels: dict[str, Any] = {}
    for node in NODE_TYPES:
        place = 0
        for feature in node.valued:
            if feature.kind is Kind.SHARE:  # its channels stand in the order of a registry
                block = x[node.name][:, place : place + feature.channels]
                for key, index in registries[str(feature.registry)].entries.items():
                    channels[f"{node.name}.{feature.name}.{key}"] = block[:, index - 1].tolist()
                block.zero_()
            place += feature.channels
    channels |= {f"x.{name}": values.numpy().tobytes() for name, values in x.items()}
    for node in NODE_TYPES:
        for column, feature in enumerate(node.categorical):
            named = {index: key for key, index in registries[str(feature.registry)].entries.items()}
            ids = batch.ids[node.name][:, column].tolist()
            channels[f"{node.name}.{feature.name}"] = [named.get(number, number) for number in ids]
    return channels


def assert_as_fresh(one: Daemon, exporter: Exporter, home: Path) -> None:
    """All tables are those of a fresh run, and nothing in Dagster is missing or stale but what does not serve."""
    shutil.rmtree(home, ignore_errors=True)
    now, fresh = digests(one.settings), digests(replayed(one.settings, exporter, home))
    assert {name: now[name] for name in now if now[name] != fresh[name]} == {}
    assert one.not_up_to_date().keys() <= {"bundle/current", "bundle/tamiyo_gnn_v1"}


def rebuilt_after_a_kill(one: Daemon, chance: random.Random) -> None:
    """Ask for a rebuild, kill it somewhere, have the dead run found, and do what the retry of the queue does."""
    for sensor in EXPORT_SENSORS:
        for request in one.evaluate(sensor)[0]:
            if killed(one.settings, request, sensor, chance.uniform(0.5, 8.0)):
                # what the kill left unfinished holds the queue until it is found: by its process, or by its silence if it
                # was killed before its run began
                gone = [*fail_stuck_runs(one.instance, timedelta(minutes=20))]
                (said,) = gone or fail_stuck_runs(one.instance, timedelta(0))
                assert "is gone" in said or "never started" in said
                assert one.execute(request, sensor).success


@pytest.fixture
def world(sample: Path, tmp_path: Path) -> World:
    return World.of(sample, tmp_path / "world")


@pytest.mark.parametrize("seed", [0, *(pytest.param(number, marks=pytest.mark.soak) for number in range(1, SEQUENCES))])
def test_random_arrivals_end_as_one_fresh_run_over_all_of_them(world: World, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    exporter = Exporter(tmp_path / "exports", world, chance)
    found = settings(tmp_path, exporter.root).model_copy(update={"retrain_after": timedelta(0)})
    with daemon(found) as one:
        exporter.arrive()
        while exporter.left:
            one.tick()
            for act in chance.sample([exporter.arrive, exporter.again, exporter.move, exporter.delete], 2):
                act()
            exporter.arrive()
            if chance.random() < 0.5:
                rebuilt_after_a_kill(one, chance)
        one.tick()
        assert one.tick() == []
        assert_as_fresh(one, exporter, tmp_path / "fresh")
        exporter.again()
        exporter.move()
        exporter.delete()
        one.tick()
        assert one.tick() == []
        assert_as_fresh(one, exporter, tmp_path / "fresh")


def test_a_kasmina_export_that_arrives_with_other_systems_exports_rebuilds_all_of_them(sample: Path, tmp_path: Path) -> None:
    """12 training runs, then 12 more: no table stays at 12."""
    source = part_of(sample, tmp_path / "source", batches=2)
    batches = sorted({path.name.partition(".")[0] for path in (source / "kasmina/seed_state").iterdir()})
    exports = tmp_path / "exports"
    shutil.copytree(source, exports, ignore=shutil.ignore_patterns(f"{batches[1]}.*"))
    found = settings(tmp_path, exports).model_copy(update={"retrain_after": timedelta(0)})
    with daemon(found) as one:
        assert one.tick() == ["everything"]
        shutil.copytree(source, exports, dirs_exist_ok=True)
        assert one.tick() == ["rebuild", "train"]
        assert one.tick() == []
        tables = TableStore(found.home)
        runs = tables.read("tolaria.system_state", columns=["training_run_id"]).column(0).unique()
        held = {
            name: len(tables.read(name, columns=["training_run_id"]).column(0).unique())
            for name in ("features.seed", "features.layer", "features.context", "norms.ewma", "coverage.by_key")
        }
        assert held == dict.fromkeys(held, len(runs)) and len(runs) > 12
        assert one.not_up_to_date().keys() <= {"bundle/current"}


def test_a_deleted_or_renamed_file_starts_nothing(world: World, tmp_path: Path) -> None:
    exporter = Exporter(tmp_path / "exports", world, random.Random(1))
    while exporter.left:
        exporter.arrive()
    found = settings(tmp_path, exporter.root)
    with daemon(found) as one:
        assert one.tick() == ["everything"]
        before = dict(one.cursors)
        exporter.delete()
        exporter.move()
        assert one.tick() == []
        assert one.cursors != before, "the cursor follows what is present"
        assert one.tick() == []


def test_the_schedule_adopts_a_new_key_of_a_simic_snapshot(world: World, tmp_path: Path) -> None:
    exporter = Exporter(tmp_path / "exports", world, random.Random(1))
    while exporter.left:
        exporter.arrive()
    found = settings(tmp_path, exporter.root)
    with daemon(found) as one:
        one.tick()
        (exporter.root / "simic/registry_snapshot/optimizer_family_registry.json").write_text('{"lion": 9}')
        schedule = one.definitions.get_schedule_def("registry_refresh_schedule")
        assert (
            one.definitions.resolve_job_def(schedule.job_name)
            .execute_in_process(instance=one.instance, run_config=QUIET)
            .success
        )
        assert load(found.home / "registries")["optimizer_family"].entries["lion"] == 9
        assert one.not_up_to_date().keys() <= {
            "bundle/current", "bundle/tamiyo_gnn_v1", "training/predictions", "training/evaluation", "training/calibration",
        }  # fmt: skip
        # the sensor sees that what changed was read by then
        assert one.tick(*EXPORT_SENSORS) == []
