"""What a user's machine lacks is skipped with its reason; CI fails for it."""

import sys

import pytest

from tests.components import program, required


def test_what_is_missing_is_skipped_on_a_users_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="drawing needs no-such-a or no-such-b, and there is none on PATH"):
        program("no-such-a", "no-such-b", purpose="drawing")


def test_what_is_missing_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no such thing"):
        required(None, "no such thing")


def test_what_is_there_is_returned_in_both(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "true"):
        monkeypatch.setenv("CI", value)
        assert program("no-such", sys.executable, purpose="this test") == sys.executable
        assert required(0, "zero is something") == 0
