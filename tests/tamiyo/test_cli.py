"""The `tamiyo` command: exit statuses, JSON, help with examples."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gnn.registry.refresh import refresh
from tamiyo.cli import app

COMMANDS = (
    ["run"], ["record"], ["coverage"], ["rejects"], ["preflight"], ["promote"], ["rollback"], ["doctor"], ["alerts"],
    ["alerts", "list"], ["alerts", "test"], ["alerts", "ack"], ["evaluate"],
    ["lineage"], ["registry"], ["registry", "list"], ["registry", "show"], ["registry", "diff"], ["registry", "retire"],
    ["graph", "show"], ["retire"],
)  # fmt: skip


def tamiyo(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_command_explains_itself_with_examples(command: list[str]) -> None:
    found = tamiyo(*command, "--help")
    assert found.exit_code == 0
    assert "Examples:" in found.output
    assert f"tamiyo {' '.join(command)}" in found.output.partition("Examples:")[2]


def test_no_exports_root_is_status_2_and_says_what_to_do(tmp_path: Path) -> None:
    found = tamiyo("run", "--exports", str(tmp_path / "nowhere"), "--home", str(tmp_path / "home"))
    assert found.exit_code == 2
    assert "expected a directory" in found.output and "--exports" in found.output
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--nonsense"],
        ["record", "--minutes", "-1"],
        ["record", "--format", "xml"],
        ["record", "--kernels", "1"],
        ["record", "--replicates", "0"],
        ["record", "--states", "13"],
        ["record", "--compile-backend", "no-such-backend"],
        ["nothing"],
    ],
)
def test_bad_arguments_are_status_2(arguments: list[str]) -> None:
    assert tamiyo(*arguments).exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["coverage"],
        ["promote", "no-such-build"],
        ["evaluate", "no-such-build", "--exports", "recorder/sample"],
        ["rollback"],
        ["lineage", "0" * 64],
        ["preflight", "no-such-bundle"],
        ["registry", "retire", "seed", "never-seen"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_is_refused_is_status_1_without_a_traceback(arguments: list[str], tmp_path: Path) -> None:
    home = [] if arguments[0] == "preflight" else ["--home", str(tmp_path)]
    found = tamiyo(*arguments, *home)
    assert found.exit_code == 1
    assert isinstance(found.exception, SystemExit)
    assert "Traceback" not in found.output and "expected" in found.output


@pytest.mark.parametrize("arguments", [["coverage"], ["promote", "no-such-build"], ["rollback"], ["lineage", "0" * 64]])
def test_what_is_refused_is_one_json_object_where_that_is_asked_for(arguments: list[str], tmp_path: Path) -> None:
    found = tamiyo(*arguments, "--home", str(tmp_path), "--json")
    assert found.exit_code == 1
    assert "expected" in json.loads(found.stdout)["error"]


def test_a_place_that_can_t_be_used_is_named_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    exports = tmp_path / "exports"
    exports.mkdir()
    (exports / "file").touch()
    found = tamiyo("run", "--exports", str(exports), "--home", str(tmp_path / "file"))
    assert (found.exit_code, "expected a directory that can be written to" in found.output) == (1, True)
    found = tamiyo("record", "--exports", str(tmp_path / "file"), "--hosts", "1", "--json")
    assert found.exit_code == 1 and "file" in json.loads(found.stdout)["error"]


def test_keys_with_square_brackets_are_shown_letter_by_letter(tmp_path: Path) -> None:
    refresh(tmp_path / "registries", {"layer_type": {"[/red] blocks[0]"}})
    found = tamiyo("registry", "show", "layer_type", "--home", str(tmp_path))
    assert (found.exit_code, "[/red] blocks[0]" in found.output) == (0, True)


def test_an_unknown_registry_is_a_bad_argument(tmp_path: Path) -> None:
    assert tamiyo("registry", "show", "colours", "--home", str(tmp_path)).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "key"),
    [(["rejects"], "rejects"), (["alerts", "list"], "alerts"), (["lineage"], "builds"), (["registry", "list"], "registries")],
)
def test_json_is_one_object_also_in_an_empty_home(arguments: list[str], key: str, tmp_path: Path) -> None:
    found = tamiyo(*arguments, "--home", str(tmp_path), "--json")
    assert found.exit_code == 0
    assert key in json.loads(found.stdout)


@pytest.mark.pipeline
def test_the_exports_of_the_existing_system_end_with_status_1_and_their_figures(
    esper_exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    home = ["--home", str(tmp_path / "home")]
    found = tamiyo("run", "--exports", str(esper_exports), *home, "--json")
    assert found.exit_code == 1, found.output
    summary = json.loads(found.stdout)
    assert (summary["rows"]["tolaria.system_state"], summary["rows"]["urza.blueprint"]) == (241, 40)
    assert summary["rejects"] == [{"table": "rejects.kasmina_seed_state", "reason": "missing_training_run_id", "records": 200}]
    assert summary["failed_steps"] == {}
    failed = {(c["asset"], c["check"]) for c in summary["failed_checks"] if c["severity"] == "ERROR"}
    assert failed == {("coverage/by_key", "mandatory_coverage"), ("coverage/gaps", "graphs_have_elements")}
    assert {"kasmina", "urabrask", "urza"} <= {s for family in summary["families"] for s in family["missing_by_system"]}
    build = summary["build"]
    assert not build["promoted"]
    assert all("no usable label" in build["heads"][head] for head in ("policy", "value", "risk"))
    listed = json.loads(tamiyo("rejects", "--table", "rejects.kasmina_seed_state", "--limit", "2", *home, "--json").stdout)
    assert [record["reason"] for record in listed["records"]] == ["missing_training_run_id"] * 2
    keys = json.loads(tamiyo("coverage", *home, "--json").stdout)["keys"]
    assert keys[0]["ratio"] == 0.0 and keys[-1]["ratio"] is None
    assert json.loads(tamiyo("lineage", build["build_id"], *home, "--json").stdout)["build_id"] == build["build_id"]
    assert tamiyo("preflight", build["path"]).exit_code == 0
    assert tamiyo("promote", build["build_id"], *home).exit_code == 1
