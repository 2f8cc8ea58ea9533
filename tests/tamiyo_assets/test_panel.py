"""The panel: what a person woken at night reads on it, on a bad day, on a young home and on a damaged one."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner

from lake.settings import Settings, resolve
from tamiyo.cli import app
from tamiyo_assets.panel.facts import OPERATOR, OpenAlert, Retired
from tamiyo_assets.panel.gather import gather, open_alerts
from tamiyo_assets.panel.publish import digest_of
from tamiyo_assets.panel.render import render
from tamiyo_assets.panel.state import State, merged, publish_state, read_state
from tamiyo_assets.panel.verdict import judge
from tests.tamiyo_assets.bad_day import KEY, REFUSED, RUN, SILENT, bad_day
from tests.tamiyo_assets.facts import BUILD, NOW, bad_facts
from tests.tamiyo_assets.pipelines import metadata, run, settings
from tests.tamiyo_assets.test_metrics import value


class Page(HTMLParser):
    """Text of a page, whole and by section; ids; addresses that it names; what it loads or runs."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sections: dict[str, str] = {"": ""}
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self._open, self._skipped = "", 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.addresses += [str(found[name]) for name in ("href", "src", "action", "xlink:href") if name in found]
        if tag in ("section", "header", "footer"):
            self._open = found.get("id") or tag
            self.sections[self._open] = ""
        self._space(tag)
        self._skipped += tag in ("style", "title")

    def handle_endtag(self, tag: str) -> None:
        self._skipped -= tag in ("style", "title")
        self._space(tag)

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.sections[self._open] = self.sections.get(self._open, "") + data

    def _space(self, tag: str) -> None:
        if tag not in ("wbr", "b", "span", "code", "a"):
            self.sections[self._open] = self.sections.get(self._open, "") + " "

    def text(self, section: str) -> str:
        return " ".join(self.sections[section].split())


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> tuple[Settings, int]:
    return bad_day(tmp_path_factory.mktemp("bad"), sample)


@pytest.fixture(scope="module")
def bad_page(bad: tuple[Settings, int]) -> Page:
    return Page(render(gather(bad[0])))


def on_the_page(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


@pytest.mark.pipeline
def test_the_page_of_a_bad_day_says_what_is_wrong_since_when_and_whom_to_ask(bad: tuple[Settings, int], bad_page: Page) -> None:
    _, since = bad
    top = bad_page.text("top")
    assert f"tolaria does not send {KEY}, a mandatory key, in 1 of 6 training runs: {RUN}." in top
    assert f"Since {on_the_page(datetime.fromtimestamp(since / 1e9, UTC))}" in top
    assert "Ask tolaria" in top
    assert top.index("Broken") < top.index(KEY) < top.index("Nothing serves")
    gaps = bad_page.text("gaps")
    assert KEY in gaps and on_the_page(datetime.fromtimestamp(since / 1e9, UTC)) in gaps and "62.5 %" in gaps


@pytest.mark.pipeline
def test_the_page_of_a_bad_day_says_what_serves_and_why_the_newest_bundle_does_not(
    bad: tuple[Settings, int], bad_page: Page
) -> None:
    serving, facts = bad_page.text("serving"), gather(bad[0]).serving
    assert "Nothing serves." in serving and "Why the newest bundle does not serve" in serving
    assert facts.newest is not None and facts.newest[:16] in serving
    failed = [gate for gate in facts.gates if not gate.passed]
    assert failed and facts.reasons
    assert all(gate.detail in serving for gate in facts.gates)
    assert all(reason in serving for reason in facts.reasons)
    assert all(gate.name in bad_page.text("top") for gate in failed)


@pytest.mark.pipeline
def test_the_page_of_a_bad_day_tells_of_feeds_and_rejects(bad_page: Page) -> None:
    feeds, top = bad_page.text("feeds"), bad_page.text("top")
    assert f"{SILENT} silent" in feeds and f"{SILENT} has sent nothing new." in top
    assert "(2 d ago)" in feeds[feeds.index(f"{SILENT} silent") :]
    assert "oona unknown: never seen never" in feeds and "oona" not in top
    assert f"kasmina missing_training_run_id rejects.kasmina_seed_state {REFUSED}" in feeds
    assert f"{REFUSED} records rejected" in top and "ask kasmina" in top
    assert "ERROR coverage/by_key mandatory_coverage" in bad_page.text("alerts")


@pytest.mark.pipeline
def test_the_run_writes_the_page_the_metrics_and_what_the_instance_knows(bad: tuple[Settings, int]) -> None:
    home = bad[0].home
    told, exposed = metadata(bad[0], "operations/panel"), (home / "metrics.prom").read_bytes()
    assert told["state"] == "ERROR" and KEY in told["headline"]
    assert (home / "panel.html").read_text().startswith("<!doctype html>")
    assert value(exposed, "tamiyo_check_failed", asset="coverage/by_key", check="mandatory_coverage") == 1
    assert value(exposed, "tamiyo_coverage_ratio", key=KEY) == pytest.approx(1 - 10 / 96)
    state = read_state(home)
    assert {"scan", "contract tables", "features", "coverage", "registries", "norms", "training", "bundle", "warehouse"} <= set(
        state.stages
    )
    assert "promotion" not in state.stages, "nothing serves"
    (only,) = state.rebuilds
    assert (only.job, only.status, dict(only.failed_steps)) == ("everything", "SUCCESS", {}) and only.seconds > 0
    assert len(state.checks) > 40 and len({(check.asset, check.check) for check in state.checks}) == len(state.checks)


def test_a_young_home_says_what_to_do(tmp_path: Path) -> None:
    page = Page(render(gather(resolve(home=tmp_path))))
    assert "Nothing has arrived in this home yet." in page.text("top")
    assert "tamiyo run" in page.text("top") and "tamiyo record" in page.text("top")
    assert set(page.sections) == {"", "top", "serving", "feeds", "footer"}
    assert list(tmp_path.iterdir()) == [], "gathering writes nothing"


def test_all_is_well_is_said_only_if_it_is() -> None:
    well = replace(bad_facts(serving=True), gaps=(), alerts=(), feeds=bad_facts().feeds[:3])
    assert judge(well).level == "GOOD" and "All is well." in Page(render(well)).text("top")
    assert judge(replace(well, max_age_days=1)).level == "WARN"
    assert "No run has reported its checks" in judge(replace(well, rebuilds=())).headline
    late = judge(replace(well, made_at=NOW + timedelta(hours=27)))
    assert late.level == "WARN" and late.problems[0].since == NOW + timedelta(seconds=41)
    damaged = judge(replace(well, unreadable={"norms": "gnn_norms.json: at loss: damaged"}))
    assert (damaged.level, damaged.problems[0].ask) == ("ERROR", OPERATOR)
    failed = replace(well.rebuilds[0], failed_steps={"features__layer": "disk full"})
    told = judge(replace(well, rebuilds=(failed,)))
    assert told.level == "ERROR" and "Step features/layer failed" in told.headline and "disk full" in told.headline


@pytest.mark.pipeline
def test_a_bundle_that_does_not_fit_the_code_is_told_in_brief(bad: tuple[Settings, int], tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(bad[0].home, home, symlinks=True)
    build = gather(bad[0]).serving.newest
    manifest = home / "bundles" / str(build) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"node_types"', '"' + "unknown" * 100 + '"'))
    found = gather(resolve(home=home))
    (reason,) = found.serving.reasons
    assert len(reason) < 450 and f"`tamiyo preflight {str(build)[:16]}` lists all" in reason
    assert all(len(problem.what) <= 320 for problem in judge(found).problems)
    assert " ".join(reason.split()) in Page(render(found)).text("serving")


def test_what_serves_and_since_when_is_named() -> None:
    serving = Page(render(bad_facts(serving=True))).text("serving")
    assert f"Build {BUILD[:16]} serves since {on_the_page(NOW - timedelta(days=2))} (2 d ago), promoted by ada" in serving


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=y>', "\x1b[31m\u202ered", "{{ 7*7 }}"])
def test_ids_from_data_are_escaped(hostile: str) -> None:
    html = render(bad_facts(run=hostile, reason=hostile))
    page = Page(html)
    assert not {"script", "img"} & page.tags
    assert "\x1b" not in html and "\u202e" not in html
    shown = hostile.encode("unicode_escape").decode() if not hostile.isprintable() else hostile
    assert shown in page.text("runs") and shown in page.text("gaps") and shown in page.text("feeds")


def test_the_page_needs_nothing_else() -> None:
    html = render(bad_facts())
    page = Page(html)
    assert all(address.startswith("#") for address in page.addresses)
    assert {address[1:] for address in page.addresses} <= set(page.sections)
    assert not {"script", "link", "img", "iframe"} & page.tags
    assert "url(" not in html and "@import" not in html and "http://" not in html and "https://" not in html


def test_a_damaged_part_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    (tmp_path / "gnn_norms.json").write_text("{}")
    (tmp_path / "gnn_norms").mkdir()
    (tmp_path / "gnn_norms" / "1.json").write_text("{}")
    (tmp_path / "operations.json").write_text('{"checks": 3}')
    found = gather(resolve(home=tmp_path))
    assert {"norms", "checks and rebuilds"} <= set(found.unreadable)
    top = Page(render(found)).text("top")
    assert "Broken" in top and "operations.json" in top and "gnn_norms.json" in top


def test_the_state_keeps_since_when_a_check_has_failed(tmp_path: Path) -> None:
    passed, failed = bad_facts().checks
    later = NOW + timedelta(hours=1)
    again = [replace(check, at=later, since=later) for check in (passed, failed)]
    mended = replace(again[1], passed=True)
    assert [c.since for c in merged([passed, failed], again, {"coverage/by_key"})] == [passed.since, failed.since]
    assert [c.since for c in merged([passed, failed], [again[0], mended], {"coverage/by_key"})] == [passed.since, later]
    assert merged([passed, failed], [], {"coverage/by_key"}) == (), "a check that is no more"
    assert merged([passed, failed], [], {"other"}) == (passed, failed), "a run that could not judge it"
    state = State((passed, failed), {"features": NOW}, bad_facts().rebuilds)
    publish_state(tmp_path, state)
    assert read_state(tmp_path) == state


def test_open_alerts_are_those_told_and_the_checks_that_fail_now() -> None:
    passed, failed = bad_facts().checks
    told = OpenAlert("feeds/oona", "silent", "silent", "WARN", NOW, "oona is silent", "oona")
    ended = replace(told, asset=passed.asset, check=passed.check)
    twice = replace(told, asset=failed.asset, check=failed.check, problem="layer.loss", severity="ERROR", system="tolaria")
    assert open_alerts([told, ended], [passed, failed]) == (bad_facts().alerts[0], told)
    assert open_alerts([told, twice], [passed, failed]) == (twice, told)
    assert bad_facts().alerts[0].system == OPERATOR


def test_retired_runs_are_shown(tmp_path: Path) -> None:
    row = {"training_run_id": "run-9", "reason": "GPU <b>fault</b>", "retired_at_ns": 1795437029378142056, "by": "ada"}
    write_deltalake(tmp_path / "tables" / "operations" / "retired", pa.Table.from_pylist([row]))
    found = gather(resolve(home=tmp_path)).retired
    assert found == (Retired("run-9", row["reason"], found[0].at, "ada"),)
    runs = Page(render(replace(bad_facts(), retired=found))).text("runs")
    assert f"run-9 GPU <b>fault</b> {on_the_page(found[0].at)}" in runs and runs.endswith("ada")


@pytest.mark.pipeline
def test_a_run_of_which_a_step_failed_writes_the_panel_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "exports").mkdir()
    found = settings(tmp_path, tmp_path / "exports")
    outcome = run(found)
    assert "operations__exports" in outcome.failed_steps
    assert metadata(found, "operations/panel")["state"] == "ERROR"
    top = Page((found.home / "panel.html").read_text()).text("top")
    assert "Step operations/exports failed in the newest run" in top and "expected a directory with files" in top
    assert read_state(found.home).rebuilds[0].status == "FAILURE"


def test_the_digest_is_of_the_home_and_not_of_the_moment() -> None:
    facts = bad_facts()
    later = replace(facts, made_at=NOW + timedelta(days=1), rebuilds=(), stages={}, checks=facts.checks[::-1])
    assert digest_of(later) == digest_of(facts)
    assert digest_of(replace(facts, rows={"tolaria.system_state": 33})) != digest_of(facts)


def test_coverage_over_rebuilds_is_drawn_from_its_table(tmp_path: Path) -> None:
    rows = [
        {"rebuild_run_id": run, "finished_at_ns": at, "key": key, "measured": measured, "elements": 10, "ratio": measured / 10}
        for run, at, measured in (("a", 10**18, 10), ("b", 2 * 10**18, 5))
        for key in ("layer.loss", "context.throughput")
    ]
    write_deltalake(tmp_path / "tables" / "coverage" / "history", pa.Table.from_pylist(rows))
    points = gather(resolve(home=tmp_path)).history
    assert [point.rebuild for point in points] == ["a", "b"]
    assert points[1].mean == pytest.approx(points[0].mean / 2) and points[1].mandatory is not None
    html = render(replace(bad_facts(), history=points))
    assert "After each rebuild" in Page(html).text("coverage") and "<polyline" in html


def test_a_large_home_stays_a_small_page() -> None:
    facts = bad_facts()
    many = tuple(replace(facts.runs[0], run_id=f"run-{n}") for n in range(1000))
    gap = replace(facts.gaps[0], runs=tuple(run.run_id for run in many))
    html = render(replace(facts, runs=many, gaps=(gap,) * 300))
    assert len(html) < 200_000
    assert "the 60 runs with the lowest coverage of 1000" in html and "and 288 smaller gaps" in html


def test_the_command_writes_the_page_and_prints_one_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, runner, opened = tmp_path, CliRunner(), []
    monkeypatch.setattr("webbrowser.open", opened.append)
    (home / ".panel.html.0123.tmp").write_text("of a writer that was killed")
    done = runner.invoke(app, ["panel", "--home", str(home), "--json"])
    found = json.loads(done.stdout)
    assert done.exit_code == 0 and found["state"] == "YOUNG" and found["path"] == str(home / "panel.html")
    assert (home / "panel.html").exists() and (home / "metrics.prom").exists() and not [*home.glob("*.tmp")]
    done = runner.invoke(app, ["panel", "--home", str(home), "--out", str(home / "other.html"), "--open"])
    assert done.exit_code == 0 and str(home / "other.html") in done.stdout and (home / "other.html").exists()
    assert opened == [(home / "other.html").as_uri()]
