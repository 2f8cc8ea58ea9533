"""Records of builds: what they pin, what they give up, and pins of earlier versions of a home."""

import json
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from lake.builds import TableSource, builds, load, pins, record, release
from lake.store.table_store import TableStore
from lake.upkeep import maintain
from schemas.errors import StorageError

NAME, OTHER = "features.numbers", "features.others"
BUILD, SECOND = "a" * 64, "b" * 64


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    """Two tables of five versions each, of which each replaces the one before."""
    store = TableStore(tmp_path)
    for number in range(5):
        for name in (NAME, OTHER):
            store.write(name, pa.table({"value": [number], "export_digest": [f"export {number}"]}))
    return store


def earlier_pin(home: Path, build_id: str, versions: object) -> Path:
    """A pin as it was written before the record of a build was the pin."""
    path = home / "pins" / f"{build_id}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"build_id": build_id, "versions": versions}) + "\n")
    return path


def readable(store: TableStore, name: str) -> list[int]:
    """Versions of a table whose files are all there."""
    return [version for version in range(5) if all(file.exists() for file in store.files(name, version))]


def test_the_record_of_a_build_is_its_pin(store: TableStore) -> None:
    path = record(store.home, store, BUILD, {NAME: 1, OTHER: 2})
    record(store.home, store, SECOND, {NAME: 3})
    assert path == store.home / "builds" / f"{BUILD}.json"
    assert builds(store.home) == [BUILD, SECOND]
    assert pins(store.home) == {BUILD: {NAME: 1, OTHER: 2}, SECOND: {NAME: 3}}
    assert not (store.home / "pins").exists()
    maintain(store, retention=timedelta(0))
    assert (readable(store, NAME), readable(store, OTHER)) == ([1, 3, 4], [2, 4])


def test_what_is_released_is_not_kept_but_stays_on_record(store: TableStore) -> None:
    record(store.home, store, BUILD, {NAME: 1, OTHER: 2})
    record(store.home, store, SECOND, {NAME: 3})
    release(store.home, store, [NAME], BUILD)
    assert pins(store.home) == {BUILD: {OTHER: 2}, SECOND: {NAME: 3}}
    release(store.home, store, [NAME])
    assert pins(store.home) == {BUILD: {OTHER: 2}, SECOND: {}}
    assert load(store.home, SECOND) == {NAME: TableSource(None, ("export 3",))}
    maintain(store, retention=timedelta(0))
    assert (readable(store, NAME), readable(store, OTHER)) == ([4], [2, 4])


def test_pins_of_earlier_versions_hold_and_are_taken_over(store: TableStore) -> None:
    record(store.home, store, BUILD, {NAME: 1, OTHER: 2})
    # the table was built anew since: its version was taken out of the pin, and stayed in the record
    pin, alone = earlier_pin(store.home, BUILD, {OTHER: 2}), earlier_pin(store.home, SECOND, {NAME: 3, OTHER: 99})
    before = {BUILD: {OTHER: 2}, SECOND: {NAME: 3, OTHER: 99}}
    assert pins(store.home) == before
    maintain(store, retention=timedelta(0))
    assert (readable(store, NAME), readable(store, OTHER)) == ([3, 4], [2, 4])
    assert pins(store.home) == before
    assert not pin.exists()
    assert not alone.exists()
    assert load(store.home, BUILD) == {NAME: TableSource(None, ("export 1",)), OTHER: TableSource(2, ("export 2",))}
    assert load(store.home, SECOND) == {NAME: TableSource(3, ("export 3",)), OTHER: TableSource(99, ())}


def test_an_earlier_pin_is_released_and_replaced_too(store: TableStore) -> None:
    earlier_pin(store.home, BUILD, {NAME: 1, OTHER: 2})
    release(store.home, store, [OTHER])
    assert pins(store.home) == {BUILD: {NAME: 1}}
    earlier_pin(store.home, BUILD, {NAME: 1})
    record(store.home, store, BUILD, {NAME: 3})
    assert pins(store.home) == {BUILD: {NAME: 3}}


@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize(
    "damage", ["{", "{}", '{"tables": {"a.b": {"version": "1", "exports": []}}, "versions": {"a.b": "1"}}']
)
def test_nothing_is_deleted_while_a_pin_is_damaged(store: TableStore, earlier: bool, damage: str) -> None:
    record(store.home, store, BUILD, {NAME: 1})
    path = earlier_pin(store.home, SECOND, {}) if earlier else record(store.home, store, SECOND, {NAME: 2})
    path.write_text(damage)
    for use in (pins, lambda _: maintain(store, retention=timedelta(0))):
        with pytest.raises(StorageError, match=SECOND):
            use(store.home)
    assert readable(store, NAME) == [0, 1, 2, 3, 4]
