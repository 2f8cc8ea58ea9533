"""The code version: what a source does, not how it is commented or laid out."""

from pathlib import Path

import pytest

from gnn.code_version import code_version, source_digest

SOURCE = b'''"""A module."""

LIMIT = 3


class Box:
    """A box."""

    size: int = 1


async def wait(seconds: float) -> None:
    """Wait."""
    return None


def double(x: int) -> int:
    """Twice x."""
    label = """not a docstring"""
    return 2 * x
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"""A module."""\n\n', b""),
        (b"A box.", b"A box, said differently."),
        (b'    """Wait."""\n', b""),
        (b'"""Twice x."""', b"'''The double\n\n    of x.'''"),
        (b"    return 2 * x", b"    # twice\n\n    return 2 * x  # the double"),
        (b"2 * x", b"(2\n        * x)"),
    ],
    ids=["module docstring", "class docstring", "no docstring", "another docstring", "comments", "layout"],
)
def test_prose_and_layout_are_no_part_of_the_digest(old: bytes, new: bytes) -> None:
    changed = SOURCE.replace(old, new)
    assert changed != SOURCE
    assert source_digest(changed) == source_digest(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"2 * x", b"3 * x"), (b"LIMIT = 3", b"LIMIT = 4"), (b"not a docstring", b"another text"), (b"x: int)", b"x: float)")],
    ids=["operation", "constant", "string", "type"],
)
def test_what_a_source_does_is_part_of_the_digest(old: bytes, new: bytes) -> None:
    changed = SOURCE.replace(old, new)
    assert changed != SOURCE
    assert source_digest(changed) != source_digest(SOURCE)


def test_the_code_version_is_one_digest_of_all_sources(repository: Path) -> None:
    assert len(code_version()) == 64
    assert source_digest((repository / "gnn/code_version.py").read_bytes()) != source_digest(SOURCE)
