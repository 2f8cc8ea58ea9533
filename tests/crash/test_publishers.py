"""Each publisher, stopped before and after every change of the file system, leaves the old set or the new one."""

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from gnn.norms import published as norms
from gnn.registry.refresh import load, refresh
from lake.alert_outbox import AlertOutbox, history
from lake.alerts.book import iso
from lake.durable.journal import Journal
from lake.durable.publish import publish_file, switch_link
from schemas.artifacts import REGISTRIES, PriorNorm
from tests.crash.faults import every_fault
from tests.lake.alerting import START, Clock, evaluation


def flats(home: Path) -> dict[str, dict[str, int]]:
    """All registries as an outside reader finds them now."""
    names = ["index.json", *(spec.file for spec in REGISTRIES.values())]
    return {name: json.loads((home / name).read_bytes()) for name in names if (home / name).exists()}


class Registry:
    """A registry directory before and after one refresh."""

    def __init__(self, home: Path, first: bool) -> None:
        self.home = home
        self.first = first
        self.prepare()
        self.old = flats(home)
        self.publish()
        self.new = flats(home)

    def prepare(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        if not self.first:
            refresh(self.home, {"seed": {"a"}, "layer_type": {"Linear"}})

    def publish(self) -> None:
        refresh(self.home, {"seed": {"a", "b"}, "layer_type": {"Linear", "ReLU"}})

    def check(self) -> None:
        assert flats(self.home) in (self.old, self.new)
        if flats(self.home):
            assert load(self.home)["seed"].entries in ({"a": 1}, {"a": 1, "b": 2})
        self.publish()
        assert flats(self.home) == self.new
        left = list(self.home.rglob("*.tmp"))
        assert not left


@pytest.mark.parametrize("first", [True, False], ids=["first refresh", "later refresh"])
def test_registries_are_the_old_set_or_the_new_one(place: Path, first: bool, capsys: pytest.CaptureFixture[str]) -> None:
    case = Registry(place / "registries", first)
    runs = every_fault(case.publish, case.prepare, case.check)
    with capsys.disabled():
        print(f"\nregistries ({'first' if first else 'later'} refresh): {runs} faults, 0 torn sets, 0 lost keys")
    assert runs > 100


def test_adoption_never_shows_anything_but_the_older_files_or_the_new_set(place: Path) -> None:
    home = place / "registries"
    older = {"seed_registry.json": {"z": 1, "a": 2}, "schedule_registry.json": {"linear": 1}}

    def prepare() -> None:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        for name, entries in older.items():
            (home / name).write_text(json.dumps(entries))

    def publish() -> None:
        refresh(home, {"seed": {"b"}})

    prepare()
    publish()
    new = flats(home)

    def check() -> None:
        found = flats(home)
        assert {name: found.get(name) for name in older} == older or found == new
        publish()
        assert flats(home) == new

    assert every_fault(publish, prepare, check) > 100


def test_norms_are_the_old_file_or_the_new_one(place: Path) -> None:
    home = place / "home"
    changed = norms.Norms.of({"momentum": PriorNorm(mean=0.5, var=0.25, transform="identity")}, {})

    def prepare() -> None:
        shutil.rmtree(home, ignore_errors=True)
        norms.publish(home, norms.Norms.default())

    def publish() -> None:
        norms.publish(home, changed)

    def check() -> None:
        found = norms.load(home)
        assert found is not None
        assert (found.version, found.priors["momentum"].mean) in ((1, 0.9), (2, 0.5))
        publish()
        again = norms.load(home)
        assert again is not None
        assert again.digest == changed.digest
        for version in range(1, again.version + 1):
            assert norms.from_json(norms.version_file(home, version)).version == version

    assert every_fault(publish, prepare, check) > 20


@pytest.mark.parametrize("torn", [b"", b'{"number": 1'], ids=["whole", "torn"])
def test_a_journal_is_as_before_or_has_one_line_more(place: Path, torn: bytes) -> None:
    journal = Journal(place / "home" / "journal.ndjson")

    def prepare() -> None:
        shutil.rmtree(place / "home", ignore_errors=True)
        journal.append([{"number": 0}])
        journal.path.write_bytes(journal.path.read_bytes() + torn)

    def publish() -> None:
        journal.append([{"number": 1}])

    def check() -> None:
        assert journal.read() in ([{"number": 0}], [{"number": 0}, {"number": 1}])
        before = journal.read()
        publish()
        assert journal.read() == [*before, {"number": 1}]

    assert every_fault(publish, prepare, check) >= 6


def test_a_file_and_a_link_change_in_one_step(place: Path) -> None:
    folder = place / "home"

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        publish_file(folder / "file", b"old")
        switch_link(folder / "link", "old")

    def publish() -> None:
        publish_file(folder / "file", b"new")
        switch_link(folder / "link", "new")

    def check() -> None:
        assert ((folder / "file").read_bytes(), str((folder / "link").readlink())) in (
            (b"old", "old"),
            (b"new", "old"),
            (b"new", "new"),
        )

    assert every_fault(publish, prepare, check) >= 12


def test_an_outbox_of_alerts_that_is_written_anew_loses_nothing_wherever_it_stops(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lake.alert_outbox._LONG", 0)
    clock = Clock(START + timedelta(days=40))
    outbox = AlertOutbox(place / "home", None, clock=clock)

    def prepare() -> None:
        shutil.rmtree(place / "home", ignore_errors=True)
        clock.now = START
        outbox.observe([evaluation("a"), evaluation("b", at=1, run="run-2"), evaluation("b", at=2, run="run-3", check="other")])
        told = [message.message_id for message in outbox.read().undelivered() if message.payload["problem"] == "a"]
        Journal(outbox.path).append({"event": "delivered", "at": iso(START), "message_id": one} for one in told)
        clock.go(days=40)

    def publish() -> None:
        outbox.deliver()

    def state() -> tuple[object, ...]:
        book = outbox.read()
        return book.failing(), [message.message_id for message in book.undelivered()], book.looks

    prepare()
    before = state()

    def check() -> None:
        assert state() == before
        publish()
        assert state() == before
        assert outbox.path.read_bytes().startswith(b'{"event": "compacted"')
        assert [alert.problem for alert in history(outbox.home)] == ["a"]
        assert not list(outbox.home.glob("*.tmp"))

    assert every_fault(publish, prepare, check) >= 12


def test_evaluations_that_come_again_after_a_crash_say_the_same(place: Path) -> None:
    outbox = AlertOutbox(place / "home", None, clock=Clock(START + timedelta(hours=1)))
    made = [evaluation("a"), evaluation("b", at=1, run="run-2"), evaluation("b", "c", at=2, run="run-3")]

    def prepare() -> None:
        shutil.rmtree(place / "home", ignore_errors=True)

    def publish() -> None:
        outbox.observe(made)

    def check() -> None:
        publish()
        told = [(message.payload["problem"], message.state) for message in outbox.read().messages.values()]
        assert told == [("a", "open"), ("b", "open"), ("a", "resolved"), ("c", "open")]

    assert every_fault(publish, prepare, check) >= 6
