"""`constraints.txt`: every pinned version can be installed by every Python that pyproject.toml allows, 3.11.0 included."""

from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

OLDEST = "3.11.0"


def refusing(pins: list[Requirement], python: str) -> dict[str, str]:
    """Pins installed here whose distribution refuses `python`, with the versions of Python that it asks for."""
    found = {}
    for pin in pins:
        try:
            asked = metadata(pin.name).get("Requires-Python")
        except PackageNotFoundError:  # of an extra that is not installed
            continue
        if asked is not None and not SpecifierSet(asked).contains(python):
            found[str(pin)] = asked
    return found


def pins(repository: Path) -> list[Requirement]:
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def test_no_pin_refuses_the_oldest_python_that_is_allowed(repository: Path) -> None:
    found = pins(repository)
    assert len(found) > 100
    assert refusing(found, OLDEST) == {}


def test_a_pin_that_refuses_a_python_is_found(repository: Path) -> None:
    assert refusing([Requirement("packaging")], "2.7")
