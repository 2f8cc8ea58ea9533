"""The doctor: every damage is found and named, and what is kept twice is put back."""

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from gnn.norms import published as norms
from gnn.registry.refresh import load, refresh
from lake import warehouse
from lake.builds import record
from lake.exports.folders import Exports
from lake.ingest.ingest import Ingest
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.artifacts import PriorNorm
from schemas.contracts import TABLES
from tamiyo.doctor import examine
from tamiyo.doctor.published import examine_norms
from tamiyo.doctor.storage import examine_tables

FILLED = ("tolaria.system_state", "tolaria.layer_telemetry")
PACKET = {"training_run_id": "a", "packet_id": "p", "timestamp_ns": "5", "training_loss": 0.5}


def test_a_silent_feed_is_found_if_it_is_asked_for(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (home.root / "kasmina/seed_state").mkdir(parents=True)
    (home.root / "kasmina/seed_state/a.ndjson").write_text("{}\n")
    home.ingest.refresh()
    assert examine(home.path) == examine(home.path, silent_after=timedelta(hours=1)) == []
    (found,) = examine(home.path, silent_after=timedelta(seconds=-1))
    assert (found.part, found.repaired) == ("feed kasmina", None)


class Home:
    """A home with everything that can be damaged, and its exports."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "home"
        self.root = folder / "exports"
        self.exports = Exports(self.root)
        self.tables = TableStore(self.path)
        self.ingest = Ingest(self.path, self.exports, self.tables)

    def digests(self) -> dict[str, str]:
        return {name: Versions(self.path, self.tables).of(name).digest for name in FILLED}

    def heal(self) -> list[str]:
        """Problems found with repair; none may be left unrepaired, nor found again."""
        found = examine(self.path, exports=self.exports, repair=True)
        assert all(f.repaired for f in found), [f for f in found if not f.repaired]
        assert examine(self.path, exports=self.exports) == []
        return [f.problem for f in found]


def publish(path: Path) -> None:
    for keys in ({"a"}, {"a", "b"}, {"b", "c"}):
        refresh(path / "registries", {"seed": keys})
    norms.publish(path, norms.Norms.default())
    norms.publish(path, norms.Norms.of({"momentum": PriorNorm(mean=0.5, var=0.25, transform="identity")}, {}))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("template"))
    states = home.root / "tolaria" / "system_state"
    states.mkdir(parents=True)
    packets = [json.dumps(PACKET | {"packet_id": f"p{number}"}) + "\n" for number in range(200)]
    (states / "a.ndjson").write_text("".join(packets) + "x\n")
    home.ingest.refresh()
    home.digests()
    publish(home.path)
    return home


@pytest.fixture
def home(template: Home, tmp_path: Path) -> Home:
    """Everything."""
    shutil.copytree(template.path.parent, tmp_path, symlinks=True, dirs_exist_ok=True)
    return Home(tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Home:
    """Registries and norms alone."""
    publish(tmp_path / "home")
    (tmp_path / "exports").mkdir()
    return Home(tmp_path)


def test_a_sound_home_has_no_findings(home: Home) -> None:
    assert examine(home.path) == []
    assert examine(home.path, repair=True) == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


REGISTRY_DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a flat file is cut": ("seed_registry.json", cut),
    "a flat file has a flipped byte": ("blueprint_tier_registry.json", flip),
    "a flat file is gone": ("seed_registry.json", lambda p: p.resolve().unlink()),
    "the index is cut": ("index.json", cut),
    "the index is gone": ("index.json", lambda p: p.resolve().unlink()),
    "an old version is cut": ("versions/seed/2.json", cut),
    "an old version is gone": ("versions/seed/1.json", Path.unlink),
    "the newest version is gone": ("versions/seed/3.json", Path.unlink),
    "a link is gone": ("seed_registry.json", Path.unlink),
    "a link leads elsewhere": ("seed_registry.json", lambda p: (p.unlink(), p.symlink_to("versions/seed/1.json"))[0]),
    "a file lies in place of a link": ("seed_registry.json", lambda p: (p.unlink(), p.write_text("{}"))[0]),
}


@pytest.mark.parametrize("damage", REGISTRY_DAMAGES)
def test_registries_are_put_back(small: Home, damage: str) -> None:
    home = small
    name, harm = REGISTRY_DAMAGES[damage]
    before = load(home.path / "registries")
    harm(home.path / "registries" / name)
    (problem, *_) = home.heal()
    assert Path(name).name in problem
    after = load(home.path / "registries")
    assert after.digests() == before.digests()
    assert after["seed"].version == 3
    assert after["seed"].retired == before["seed"].retired == ("a",)
    assert json.loads((home.path / "registries" / "versions" / "seed" / "1.json").read_text()) == {"a": 1}
    assert json.loads((home.path / "registries" / "seed_registry.json").read_text()) == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize("harm", [cut, flip, Path.unlink], ids=["cut", "flipped", "gone"])
@pytest.mark.parametrize("name", ["gnn_norms.json", "gnn_norms/2.json"])
def test_norms_are_put_back(small: Home, name: str, harm: Callable[[Path], None]) -> None:
    home = small
    harm(home.path / name)
    assert any(Path(name).name in problem for problem in home.heal())
    current = norms.load(home.path)
    assert current is not None
    assert (current.version, current.priors["momentum"].mean) == (2, 0.5)


def test_an_older_systems_norms_are_no_damage_before_or_after_they_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "gnn_norms.json").write_text('{"loss": {"mean": 1.0, "var": 2.0}}')
    assert list(examine_norms(tmp_path, repair=True)) == []
    norms.publish(tmp_path, norms.Norms.default())
    assert list(examine_norms(tmp_path, repair=True)) == []


def test_an_old_version_of_the_norms_that_is_gone_is_said(small: Home) -> None:
    (small.path / "gnn_norms" / "1.json").unlink()
    (finding,) = examine(small.path, repair=True)
    assert finding.repaired is None
    assert "gnn_norms/1.json" in finding.problem


def data_file(home: Home) -> Path:
    (file,) = home.tables.files("tolaria.system_state")
    return file


TABLE_DAMAGES: dict[str, Callable[[Home], None]] = {
    "a data file is cut": lambda home: cut(data_file(home)),
    "a data file is gone": lambda home: data_file(home).unlink(),
    "a commit is torn": lambda home: cut(sorted((home.tables.path("tolaria.system_state") / "_delta_log").glob("*.json"))[-1]),
    "rows are gone": lambda home: (
        home.tables.write("tolaria.system_state", TABLES["tolaria.system_state"].empty()),
        None,
    )[-1],
    "rejects are gone": lambda home: home.tables.remove("rejects.tolaria_system_state"),
}


@pytest.mark.parametrize("damage", TABLE_DAMAGES)
def test_contract_tables_are_built_again_from_the_exports(home: Home, template: Home, damage: str) -> None:
    record(home.path, home.tables, "c" * 64, {"tolaria.system_state": 0})
    TABLE_DAMAGES[damage](home)
    assert any("system_state" in problem for problem in home.heal())
    assert home.digests() == template.digests()
    assert home.ingest.accounting("tolaria.system_state").balanced
    assert home.tables.count("rejects.tolaria_system_state") == 1


def test_a_flipped_byte_in_a_data_file_is_found(home: Home) -> None:
    file = data_file(home)
    whole = file.read_bytes()
    for place in range(0, len(whole), len(whole) // 12):
        data = bytearray(whole)
        data[place] ^= 0x10
        file.write_bytes(bytes(data))
        (finding,) = examine_tables(home.path, home.tables, None, repair=False)
        assert "tolaria.system_state" in finding.part


def test_tables_whose_exports_are_gone_are_moved_aside(home: Home) -> None:
    shutil.rmtree(home.root / "tolaria")
    home.ingest.refresh()
    cut(data_file(home))
    found = examine(home.path, exports=home.exports, repair=True)
    assert any("moved to" in str(f.repaired) for f in found)
    assert [p.name for p in (home.path / "damaged").iterdir()] == ["tolaria.system_state-0"]


def test_a_moved_home_gets_its_views_anew(home: Home, tmp_path: Path) -> None:
    warehouse.publish(home.path, home.tables)
    moved = tmp_path / "moved"
    home.path.rename(moved)
    (finding,) = examine(moved, repair=True)
    assert "warehouse.duckdb" in finding.problem
    assert examine(moved) == []


def test_a_damaged_ledger_is_said(home: Home) -> None:
    flip(home.path / "exports.ndjson")
    found = examine(home.path)
    assert [f.repaired for f in found] == [None]
    assert "exports.ndjson" in found[0].problem


def test_a_link_to_no_sound_bundle_is_said(small: Home) -> None:
    (small.path / "bundles" / ("d" * 64)).mkdir(parents=True)
    (small.path / "current").symlink_to("bundles/" + "d" * 64)
    problems = [f.problem for f in examine(small.path, repair=True)]
    assert len(problems) == 2
    assert "current" in problems[1]
