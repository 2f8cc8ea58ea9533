"""Publishing and promoting a bundle, stopped before and after every change of the file system."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

import gnn.bundle.write as bundle_write
from gnn.bundle import BuildInputs, rollback, serving, write_bundle
from gnn.bundle.members import ALL
from gnn.bundle.promote import promotions
from gnn.model.experiment import train
from gnn.norms import published as norms
from gnn.registry.refresh import load, refresh
from lake.durable.publish import switch_link
from schemas.configuration import ModelConfig, TrainingConfig
from tests.crash.faults import every_fault
from tests.gnn.model.store import problem

SMALL = TrainingConfig(
    epochs=1,
    batch_graphs=8,
    bootstrap=2,
    boosting=False,
    gaussian_process=False,
    model=ModelConfig(hidden=8, activation_hidden=8, out=8, head_hidden=8),
)


def whole(bundle: Path) -> bool:
    """Whether every member is there with the digest that the manifest gives, and nothing else."""
    text = (bundle / "manifest.json").read_bytes()
    members = json.loads(text)["members"]
    found = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    digests = {name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in members}
    assert (bundle / "manifest.sha256").read_text().split()[0] == hashlib.sha256(text).hexdigest()
    return found == set(ALL) and all(digests[name] == member["sha256"] for name, member in members.items())


class Homes:
    """A home with registries, norms and a small model; its bundles differ in one input."""

    def __init__(self, path: Path) -> None:
        self.path = path
        refresh(path / "registries", {"seed": {"a"}})
        norms.publish(path, norms.Norms.default())
        self.dataset, examples = problem(8)
        self.trained = train(self.dataset, examples, SMALL)

    def inputs(self, label: str) -> BuildInputs:
        registries = load(self.path / "registries").digests()
        scales = norms.Norms.default().digest
        tables = {"urza.blueprint": label * 64}
        return BuildInputs(tables=tables, registries=registries, norms=scales, code="c" * 64, configuration={})

    def write(self, label: str) -> Path:
        return write_bundle(
            self.path,
            self.trained,
            registries=self.path / "registries",
            norms=self.path / norms.NORMS,
            dataset=self.dataset,
            inputs=self.inputs(label),
        )


def test_a_bundle_appears_whole_or_not_at_all(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Homes(place / "home")
    first, bundle = home.write("a"), home.path / "bundles" / home.inputs("b").build_id
    members = bundle_write._members(
        home.trained,
        load(home.path / "registries"),
        norms.Norms.default(),
        home.path / "registries",
        home.path / norms.NORMS,
        home.dataset,
    )
    monkeypatch.setattr(bundle_write, "_members", lambda *_: dict(members))

    def prepare() -> None:
        shutil.rmtree(bundle, ignore_errors=True)

    def check() -> None:
        assert whole(first)
        if bundle.exists():
            assert whole(bundle)
            return
        home.write("b")
        assert whole(bundle)
        assert {p.name for p in bundle.parent.iterdir()} == {first.name, bundle.name, ".lock"}

    assert every_fault(lambda: home.write("b"), prepare, check) > 100


def test_current_is_the_old_bundle_or_the_new_one(place: Path) -> None:
    home = Homes(place / "home")
    old, new = home.write("a").name, home.write("b").name

    def prepare() -> None:
        (home.path / "promotions.ndjson").unlink(missing_ok=True)
        switch_link(home.path / "current", f"bundles/{old}")

    def publish() -> None:
        rollback(home.path, new)

    def check() -> None:
        now = serving(home.path)
        assert now in (old, new)
        assert whole((home.path / "current").resolve())
        if now == new:
            assert promotions(home.path)[-1]["build_id"] == new
        publish()
        assert serving(home.path) == new

    assert every_fault(publish, prepare, check) > 10
