"""Where things are: options before variables before defaults, and the sample where nothing is named."""

from datetime import timedelta
from pathlib import Path

import pytest

from gnn.bundle import GateConfig
from lake.exports.folders import Exports
from lake.exports.ledger import Ledger
from lake.settings import SAMPLE, ExportsMissing, Settings, note_origin, require_exports, require_home, resolve
from schemas.configuration import TrainingConfig, TrainingLaunch
from schemas.decode import Limits
from schemas.errors import ContractError, StorageError
from tests.exports import part_of


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own(root: Path, name: str = "tolaria/system_state/a.ndjson") -> Path:
    """A file of exports that is not the sample's."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}\n")
    return path


def arrived(home: Path, root: Path) -> None:
    """The files under `root` arrive in `home`."""
    Ledger(home).record(Exports(root).scan())


def test_without_exports_the_sample_is_read_into_a_home_of_its_own(tmp_path: Path) -> None:
    found = resolve(environment={})
    assert (found.home, found.dagster_home) == (tmp_path / "var/sample", tmp_path / "var/dagster")
    assert (found.exports, found.exports_are_sample) == (SAMPLE, True)
    assert (found.mandatory_coverage, found.family_coverage) == (1.0, 0.70)


@pytest.mark.parametrize("name", ["tolaria", "tolaria/system_state/.a.ndjson", "tolaria/system_state/a.ndjson.tmp"])
def test_a_default_exports_root_without_a_finished_file_means_the_sample(tmp_path: Path, name: str) -> None:
    root = tmp_path / "var/exports"
    if name.endswith("tolaria"):
        (root / name).mkdir(parents=True)
    else:
        own(root, name)
    assert resolve(environment={}).exports_are_sample


def test_the_first_export_means_the_default_home(tmp_path: Path) -> None:
    own(tmp_path / "var/exports")
    found = resolve(environment={})
    assert (found.exports, found.exports_are_sample) == (tmp_path / "var/exports", False)
    assert found.home == tmp_path / "var/tamiyo"


def test_a_root_that_vanishes_after_an_arrival_never_means_the_sample_again(tmp_path: Path) -> None:
    path = own(tmp_path / "var/exports")
    arrived(tmp_path / "var/tamiyo", tmp_path / "var/exports")
    path.unlink()
    found = resolve(environment={})
    assert not found.exports_are_sample and found.home == tmp_path / "var/tamiyo"
    with pytest.raises(ExportsMissing, match="found a directory without any"):
        require_exports(found)


def test_a_home_that_holds_the_sample_is_no_place_for_own_exports(tmp_path: Path) -> None:
    """What versions before this one left in `var/tamiyo`."""
    arrived(tmp_path / "var/tamiyo", SAMPLE)
    assert resolve(environment={}).exports_are_sample
    own(tmp_path / "var/exports")
    with pytest.raises(StorageError, match="found the committed sample"):
        require_home(resolve(environment={}))


@pytest.mark.parametrize("batches", [1, 100], ids=["a part", "the whole"])
def test_a_copy_of_the_sample_is_an_export_like_any_other(tmp_path: Path, batches: int) -> None:
    part_of(SAMPLE, tmp_path / "var/exports", batches=batches)
    found = resolve(environment={})
    require_home(found)
    note_origin(found)
    arrived(found.home, found.exports)
    require_home(resolve(environment={}))
    (tmp_path / "var/exports").rename(tmp_path / "away")
    assert not resolve(environment={}).exports_are_sample


def test_a_named_home_takes_the_sample_until_other_exports_arrive(tmp_path: Path) -> None:
    found = resolve(home=Path("named"), environment={})
    assert (found.home, found.exports_are_sample) == (tmp_path / "named", True)
    note_origin(found)
    arrived(tmp_path / "named", SAMPLE)
    assert resolve(home=Path("named"), environment={}).exports_are_sample
    own(tmp_path / "other")
    note_origin(resolve(home=Path("named"), exports=Path("other"), environment={}))
    arrived(tmp_path / "named", tmp_path / "other")
    assert not resolve(home=Path("named"), environment={}).exports_are_sample


def test_options_beat_variables(tmp_path: Path) -> None:
    env = {"TAMIYO_EXPORTS": "a", "TAMIYO_HOME": "b", "DAGSTER_HOME": "c"}
    assert resolve(environment=env).exports == tmp_path / "a"
    assert resolve(environment=env).dagster_home == tmp_path / "c"
    found = resolve(exports=Path("x"), home=Path("y"), environment=env)
    assert (found.exports, found.home, found.dagster_home) == (tmp_path / "x", tmp_path / "y", tmp_path / "y/dagster")
    assert not found.exports_are_sample


def test_a_home_of_its_own_has_an_event_log_of_its_own(tmp_path: Path) -> None:
    assert resolve(home=Path("y"), environment={}).dagster_home == tmp_path / "y/dagster"


@pytest.mark.parametrize(("name", "says"), [("nowhere", "no directory"), ("empty", "a directory without any")])
def test_a_named_exports_root_that_is_absent_or_empty_is_said_so(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportsMissing, match=f"expected a directory with files .*, found {says}"):
        require_exports(resolve(exports=Path(name), environment={}))


def test_limits_of_decoding_are_configured_and_checked() -> None:
    assert resolve(environment={}).limits == Limits()
    assert resolve(environment={"TAMIYO_LIMITS": '{"string_bytes": 10}'}).limits == Limits(string_bytes=10)
    for wrong, named in (("{", "{"), ('{"string_bytes": 0}', "string_bytes"), ('{"strings": 1}', "strings")):
        with pytest.raises(ContractError, match=named):
            resolve(environment={"TAMIYO_LIMITS": wrong})


@pytest.mark.parametrize("name", ["TAMIYO_MANDATORY_COVERAGE", "TAMIYO_FAMILY_COVERAGE"])
def test_a_threshold_that_is_no_share_is_named(name: str) -> None:
    assert resolve(environment={name: "0.5"}).model_dump()[name.removeprefix("TAMIYO_").lower()] == 0.5
    for wrong in ("most", "1.5", "nan"):
        with pytest.raises(ContractError, match=f"{name}: expected a number from 0 to 1, found '{wrong}'"):
            resolve(environment={name: wrong})


def test_the_freshness_window_is_a_number_of_hours() -> None:
    assert resolve(environment={}).freshness == timedelta(hours=36)
    assert resolve(environment={"TAMIYO_FRESHNESS_HOURS": "0.5"}).freshness == timedelta(minutes=30)
    for wrong in ("soon", "0", "-1", "nan", "inf"):
        with pytest.raises(ContractError, match=f"TAMIYO_FRESHNESS_HOURS: expected a number of hours .*, found '{wrong}'"):
            resolve(environment={"TAMIYO_FRESHNESS_HOURS": wrong})


def test_a_home_that_can_t_be_written_to_is_named(tmp_path: Path) -> None:
    require_home(resolve(home=tmp_path / "new", environment={}))
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file: expected a directory that can be written to, found: .*; pass --home"):
        require_home(resolve(home=tmp_path / "file", environment={}))


def pipeline_file(home: Path, text: str) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "pipeline.toml").write_text(text)


def test_the_file_of_a_home_changes_defaults_and_variables_beat_it(tmp_path: Path) -> None:
    pipeline_file(
        tmp_path / "h",
        'retrain_after = 0\nmax_silence = "90s"\nmax_age = "1.5 d"\n'
        "[checks]\nfamily_coverage = 0.5\ndrift = 0.5\noptional_gap_runs = 5\n"
        "[gates]\nlead_at_least = -1\n[training]\nepochs = 3\n",
    )
    found = resolve(home=Path("h"), environment={})
    assert (found.retrain_after, found.max_silence, found.max_age) == (
        timedelta(0),
        timedelta(seconds=90),
        timedelta(hours=36),
    )
    assert (found.family_coverage, found.mandatory_coverage, found.training.epochs) == (0.5, 1.0, 3)
    assert (found.drift, found.optional_gap_runs, found.coverage_drop, found.registry_capacity) == (0.5, 5, 0.10, 0.90)
    assert found.gates["lead_at_least"] == -1 and found.gates["risk_ece_at_most"] == 0.05
    assert resolve(home=Path("h"), environment={"TAMIYO_FAMILY_COVERAGE": "0.6"}).family_coverage == 0.6


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("retrain_after", "expected TOML"),
        ('retrain_after = "soon"', "retrain_after: .*expected seconds"),
        ("retrain_after = -1", "retrain_after"),
        ("[checks]\nmandatory_coverage = 2", "checks.mandatory_coverage"),
        ("[checks]\ncoverage = 1", "checks.coverage"),
        ("[checks]\ncoverage_drop_rebuilds = 0", "checks.coverage_drop_rebuilds"),
        ("[checks]\ndrift = -1", "checks.drift"),
        ("[gates]\nlead = 1", "gates: expected some of benefit_above, .*, found lead"),
        ("patience = 1", "patience"),
    ],
)
def test_a_bad_file_of_a_home_is_named_with_its_fault(tmp_path: Path, text: str, named: str) -> None:
    pipeline_file(tmp_path / "h", text)
    with pytest.raises(ContractError, match=f"pipeline.toml: .*{named}"):
        resolve(home=Path("h"), environment={})


def test_the_documented_defaults_are_those_of_the_code(tmp_path: Path) -> None:
    found = resolve(environment={})
    assert GateConfig(**found.gates) == GateConfig()
    assert found.training == TrainingConfig()
    assert Settings(home=tmp_path, exports=tmp_path, dagster_home=tmp_path).model_dump(exclude={"home", "exports", "gates"}) | {
        "dagster_home": found.dagster_home,
        "exports_are_sample": True,
    } == found.model_dump(exclude={"home", "exports", "gates"})


def test_where_a_training_runs_is_no_part_of_its_configuration(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert resolve(home=home, environment={}).launch == TrainingLaunch()
    (home / "pipeline.toml").write_text(
        '[training]\nseed = 7\n[training.launch]\nwhere = "pipes"\nprocesses = 4\nprefix = ["ssh", "gpu"]\n'
    )
    found = resolve(home=home, environment={})
    assert found.launch == TrainingLaunch(where="pipes", processes=4, prefix=("ssh", "gpu"))
    assert found.training == TrainingConfig(seed=7)
    assert "launch" not in found.training.model_dump()
    named = resolve(home=home, environment={"TAMIYO_TRAINING_LAUNCH": '{"processes": 1, "prefix": []}'}).launch
    assert named == TrainingLaunch(where="pipes"), "what the variable names, and no more"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "TAMIYO_TRAINING_LAUNCH: expected a JSON object of where, processes, prefix, python, found"),
        ('{"where": "there"}', "'where': Input should be 'in_process' or 'pipes'"),
        ('{"processes": 0}', "'processes': "),
        ('{"prefix": [""]}', r"'prefix\.0': "),
        ('{"command": "x"}', "'command': "),
    ],
)
def test_a_wrong_launch_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ContractError, match=says):
        resolve(home=tmp_path, environment={"TAMIYO_TRAINING_LAUNCH": text})
    (tmp_path / "pipeline.toml").write_text("[training.launch]\nprocesses = 65\n")
    with pytest.raises(ContractError, match=r"training\.launch\.processes"):
        resolve(home=tmp_path, environment={})
