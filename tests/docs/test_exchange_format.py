"""The exchange format as documented: its worked example runs without our packages, its schemas are current."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gnn.bundle import BuildInputs, write_bundle
from gnn.bundle.published_schemas import DIRECTORY, schema_files
from gnn.model.experiment import train
from gnn.norms import published as norms
from gnn.registry.refresh import load, refresh
from schemas.artifacts import FlatRegistry, NormsFile, RegistryIndex
from schemas.configuration import ModelConfig, TrainingConfig
from tests.gnn.model.store import problem

SMALL = TrainingConfig(
    epochs=1,
    batch_graphs=8,
    bootstrap=2,
    boosting=False,
    gaussian_process=False,
    model=ModelConfig(hidden=8, activation_hidden=8, out=8, head_hidden=8),
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A home with registries, norms and a bundle of a small model."""
    home = tmp_path_factory.mktemp("home")
    refresh(home / "registries", {"seed": {"σ", "a"}, "optimizer_family": {"Lion"}})
    norms.publish(home, norms.Norms.default())
    registries = load(home / "registries")
    dataset, examples = problem(8)
    inputs = BuildInputs(
        tables={"urza.blueprint": "0" * 64},
        registries=registries.digests(),
        norms=norms.Norms.default().digest,
        code="1" * 64,
        configuration=SMALL.model_dump(mode="json"),
    )
    bundle = write_bundle(
        home,
        train(dataset, examples, SMALL),
        registries=home / "registries",
        norms=home / norms.NORMS,
        dataset=dataset,
        inputs=inputs,
    )
    return home, bundle


def example(repository: Path) -> str:
    text = (repository / "docs" / "simic" / "exchange-format.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    return str(code)


def run(repository: Path, published: tuple[Path, Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    home, bundle = published
    start = f"from pathlib import Path\nHOME, BUNDLE = Path({str(home)!r}), Path({str(bundle)!r})\n"
    # -I -S: no site packages, no working directory, no environment: the standard library alone
    command = [sys.executable, "-I", "-S", "-c", start + example(repository)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_worked_example_runs_in_plain_python(repository: Path, published: tuple[Path, Path], tmp_path: Path) -> None:
    done = run(repository, published, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "AdamW -> 3" in done.stdout
    assert "TRAINING -> 3" in done.stdout
    assert "a stage from the future -> 255" in done.stdout
    assert "no stage -> 0" in done.stdout
    assert "loss 0.5 -> -1.000" in done.stdout
    assert "learning rate 0.01 -> 0.000" in done.stdout
    assert "all of the shapes in the manifest" in done.stdout


def test_the_worked_example_finds_damage(repository: Path, published: tuple[Path, Path], tmp_path: Path) -> None:
    for victim, said in (
        (published[0] / "registries" / "seed_registry.json", "seed: the file is not the one"),
        (published[1] / "golden.safetensors", "golden.safetensors is damaged"),
        (published[1] / "manifest.json", "manifest.json is damaged"),
    ):
        data = victim.read_bytes()
        victim.write_bytes(data.replace(b"1", b"2", 1))
        done = run(repository, published, tmp_path)
        victim.write_bytes(data)
        assert done.returncode == 1
        assert said in done.stderr


def test_the_published_schemas_are_current() -> None:
    expected = schema_files()
    found = {path.name: path.read_bytes() for path in DIRECTORY.glob("*.json")}
    assert found == expected, "run `python -m gnn.bundle.published_schemas`"


def test_what_is_published_keeps_its_schema(published: tuple[Path, Path]) -> None:
    home, _ = published
    RegistryIndex.model_validate_json((home / "registries" / "index.json").read_bytes())
    FlatRegistry.model_validate_json((home / "registries" / "seed_registry.json").read_bytes())
    NormsFile.model_validate_json((home / "gnn_norms.json").read_bytes())
    flat = json.loads((DIRECTORY / "flat_registry.schema.json").read_bytes())
    assert flat["additionalProperties"]["minimum"] == 1
