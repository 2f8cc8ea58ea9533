"""Where things are: options before variables before defaults, and the sample where nothing is named."""

from pathlib import Path

import pytest

from schemas.decode import Limits
from schemas.errors import ContractError, StorageError
from tamiyo_assets.settings import SAMPLE, ExportsMissing, require_exports, require_home, resolve


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults_are_the_house_s_own(tmp_path: Path) -> None:
    found = resolve(environment={})
    assert found.home == tmp_path / "var/tamiyo"
    assert found.dagster_home == tmp_path / "var/dagster"
    assert (found.exports, found.exports_are_sample) == (SAMPLE, True)
    assert (found.mandatory_coverage, found.family_coverage) == (1.0, 0.70)


def test_an_empty_default_exports_root_means_the_sample_and_a_filled_one_does_not(tmp_path: Path) -> None:
    root = tmp_path / "var/exports"
    root.mkdir(parents=True)
    assert resolve(environment={}).exports_are_sample
    (root / "tolaria").mkdir()
    assert (resolve(environment={}).exports, resolve(environment={}).exports_are_sample) == (root, False)


def test_options_beat_variables(tmp_path: Path) -> None:
    env = {"TAMIYO_EXPORTS": "a", "TAMIYO_HOME": "b", "DAGSTER_HOME": "c"}
    assert resolve(environment=env).exports == tmp_path / "a"
    found = resolve(exports=Path("x"), home=Path("y"), environment=env)
    assert (found.exports, found.home, found.dagster_home) == (tmp_path / "x", tmp_path / "y", tmp_path / "c")
    assert not found.exports_are_sample


def test_a_home_of_its_own_has_an_event_log_of_its_own(tmp_path: Path) -> None:
    assert resolve(home=Path("y"), environment={}).dagster_home == tmp_path / "y/dagster"


def test_a_named_exports_root_that_is_not_there_is_said_so() -> None:
    with pytest.raises(ExportsMissing, match="expected a directory"):
        require_exports(resolve(exports=Path("nowhere"), environment={}))


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


def test_a_home_that_can_t_be_written_to_is_named(tmp_path: Path) -> None:
    require_home(resolve(home=tmp_path / "new", environment={}))
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file: expected a directory that can be written to, found: .*; pass --home"):
        require_home(resolve(home=tmp_path / "file", environment={}))
