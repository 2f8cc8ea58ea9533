"""The journal: whole lines in order, a torn last one cut off, a damaged one named."""

from pathlib import Path

import pytest

from lake.durable.journal import Journal
from schemas.errors import StorageError


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "new" / "journal.ndjson", "restore it")


def test_what_is_appended_is_read_in_order(journal: Journal) -> None:
    assert journal.read() == []
    journal.append([])
    assert not journal.path.exists()
    journal.append({"number": number} for number in range(3))
    journal.append([{"number": 3, "path": Path("x"), "text": "é\n"}])
    assert journal.read() == [{"number": 0}, {"number": 1}, {"number": 2}, {"number": 3, "path": "x", "text": "é\n"}]
    assert journal.path.read_bytes().count(b"\n") == 4


@pytest.mark.parametrize("torn", [b"{", b'{"number": 7}', b"x" * 200_000], ids=["a letter", "all but its end", "a long one"])
@pytest.mark.parametrize("before", [[], [{"number": 0}, {"number": 1}]], ids=["empty", "two lines"])
def test_a_torn_last_line_never_counts_and_is_cut_off(journal: Journal, before: list[dict[str, object]], torn: bytes) -> None:
    journal.path.parent.mkdir()
    journal.path.touch()
    journal.append(before)
    with journal.path.open("ab") as file:
        file.write(torn)
    assert journal.read() == journal.readable() == before
    journal.append([{"number": 2}])
    assert journal.read() == [*before, {"number": 2}]


@pytest.mark.parametrize("damage", [b"x", b"[1]", b'{"number": 1}, {"number": 2}', b"", b"\xff"])
def test_a_damaged_line_is_named_with_what_to_do(journal: Journal, damage: bytes) -> None:
    journal.append([{"number": 0}])
    with journal.path.open("ab") as file:
        file.write(damage + b'\n{"number": 3}\n')
    with pytest.raises(StorageError, match=r"journal\.ndjson: line 2: .*; restore it"):
        journal.read()
    assert journal.readable() == [{"number": 0}, {"number": 3}]
