"""A home with published registries and norms, and a small trained model to bundle."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from gnn.bundle import BuildInputs, write_bundle
from gnn.model.experiment import train
from gnn.model.trained import TrainedModel
from gnn.norms import published as norms_files
from gnn.registry.refresh import load, refresh
from schemas.configuration import ModelConfig, TrainingConfig
from tests.gnn.model.store import MemoryStore, problem

SMALL = ModelConfig(hidden=16, activation_hidden=8, out=8, head_hidden=16)
CONFIG = TrainingConfig(epochs=2, batch_graphs=8, bootstrap=20, boosting=False, gaussian_process=False, model=SMALL)


@dataclass(frozen=True)
class Home:
    """A home directory, what was trained for it, and how to bundle it."""

    path: Path
    trained: TrainedModel
    store: MemoryStore

    def inputs(self, label: str = "a") -> BuildInputs:
        return BuildInputs(
            tables={"tamiyo.field_report": label * 64},
            registries=load(self.path / "registries").digests(),
            norms=norms_files.from_json(self.path / "gnn_norms.json").digest,
            code="c" * 64,
            configuration=CONFIG.model_dump(mode="json"),
        )

    def write(self, label: str = "a") -> Path:
        return write_bundle(
            self.path,
            self.trained,
            registries=self.path / "registries",
            norms=self.path / "gnn_norms.json",
            dataset=self.store,
            inputs=self.inputs(label),
        )


@pytest.fixture(scope="session")
def trained() -> tuple[TrainedModel, MemoryStore]:
    store, examples = problem(12)
    return train(store, examples, CONFIG), store


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, trained: tuple[TrainedModel, MemoryStore]) -> Home:
    """One home with one bundle, published once; tests work on copies of it."""
    path = tmp_path_factory.mktemp("published")
    refresh(path / "registries", {"layer_type": {"linear", "conv2d"}, "seed": {"seed-1", "seed-2"}})
    norms_files.publish(path, norms_files.Norms.default())
    home = Home(path, *trained)
    home.write()
    return home


@pytest.fixture
def home(tmp_path: Path, published: Home) -> Home:
    shutil.copytree(published.path, tmp_path / "home", symlinks=True)
    return Home(tmp_path / "home", published.trained, published.store)


@pytest.fixture
def bundle(home: Home) -> Path:
    return home.path / "bundles" / home.inputs().build_id
