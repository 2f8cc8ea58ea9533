"""Digests of exports that are noted on disk: a cache that no change of a file gets past, and that the doctor checks."""

import json
import os
import time
from pathlib import Path

import pytest

import lake.exports.folders as exports_module
from lake.durable.file_digest import file_digest
from lake.exports.digests import DIGESTS
from tamiyo.doctor import examine
from tests.lake.test_ingest import Site, packet

NAME = "tolaria/system_state/{}.ndjson"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site with one export, whose files count as old: nobody waits two seconds."""
    monkeypatch.setattr(exports_module, "_SETTLED_NS", 0)
    site = Site(tmp_path)
    site.put(NAME.format("a"), packet("a", 1))
    return site


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are hashed from now on."""
    names: list[str] = []

    def counted(path: Path) -> str:
        names.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(exports_module, "file_digest", counted)
    return names


def test_a_later_process_hashes_only_what_is_new(site: Site, hashed: list[str]) -> None:
    site.ingest.refresh()
    assert hashed == ["a.ndjson"]
    site.put(NAME.format("b"), packet("b", 1))
    site.ingest.refresh()
    site.ingest.refresh()
    assert hashed == ["a.ndjson", "b.ndjson"]
    assert site.ingest.run_ids() == ["a", "b"]


def test_a_change_that_keeps_size_and_time_is_found(site: Site, hashed: list[str]) -> None:
    path = site.root / NAME.format("a")
    before = path.stat()
    site.ingest.refresh()
    time.sleep(0.02)  # more than a tick of the file system's clock
    path.write_bytes(path.read_bytes().replace(b"a-1", b"a-2"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert site.ingest.refresh().wrote
    assert hashed == ["a.ndjson"] * 2
    assert sorted(site.tables.read("tolaria.system_state").column("packet_id").to_pylist()) == ["a-1", "a-2"]


def test_a_young_file_is_hashed_again(site: Site, hashed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports_module, "_SETTLED_NS", 2_000_000_000)
    site.ingest.refresh()
    site.ingest.refresh()
    assert hashed == ["a.ndjson"] * 2
    assert not (site.home / DIGESTS).exists()


def other_root(path: Path) -> None:
    body = json.loads(path.read_bytes().split(b"\n")[1])
    path.write_text(json.dumps(body | {"root": "/nowhere"}))


@pytest.mark.parametrize(
    "harm",
    [Path.unlink, lambda p: p.write_bytes(p.read_bytes()[:-9]), lambda p: p.write_bytes(b""), other_root],
    ids=["gone", "cut", "empty", "of another root"],
)
def test_without_a_sound_cache_everything_is_hashed(site: Site, hashed: list[str], harm: object) -> None:
    site.ingest.refresh()
    harm(site.home / DIGESTS)  # type: ignore[operator]
    assert not site.ingest.refresh().wrote
    assert hashed == ["a.ndjson"] * 2


def test_files_that_are_gone_are_forgotten(site: Site) -> None:
    site.ingest.refresh()
    (site.root / NAME.format("a")).unlink()
    site.put(NAME.format("b"), packet("b", 1))
    site.ingest.refresh()
    assert b"a.ndjson" not in (site.home / DIGESTS).read_bytes()


def test_the_doctor_hashes_every_file_and_removes_a_cache_that_is_wrong(site: Site) -> None:
    site.ingest.refresh()
    assert examine(site.home) == []
    path = site.root / NAME.format("a")
    memory = site.ingest.exports
    memory.recall(site.home)
    scan = memory.scan()
    memory._digests.learn(NAME.format("a"), scan.exports[0].signature, "0" * 64)
    memory.note(site.home, scan)
    (finding,) = examine(site.home)
    assert path.relative_to(site.root).as_posix() in finding.problem
    assert finding.repaired is None
    (repaired,) = examine(site.home, repair=True)
    assert repaired.repaired
    assert examine(site.home) == []
    (site.home / DIGESTS).write_text("x")
    assert [f.repaired is not None for f in examine(site.home, repair=True)] == [True]
