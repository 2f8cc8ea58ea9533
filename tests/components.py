"""Components that some tests need beside Python, make and git.

A user's machine that lacks one skips those tests and says why; CI, where `CI` is `true`, must have them all and fails.
"""

import os
import shutil
from typing import Final, TypeVar

import pytest

Found = TypeVar("Found")
IN_CI: Final = os.environ.get("CI") == "true"  # tests that take minutes take their long form, or run at all, in CI alone


def required(found: Found | None, reason: str) -> Found:
    """Return `found`; if it is None, skip the test for `reason`, or fail it in CI."""
    if found is not None:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def program(*names: str, purpose: str) -> str:
    """Return the path of the first of `names` on PATH; without one, `required` ends the test."""
    found = next(filter(None, map(shutil.which, names)), None)
    return required(found, f"{purpose} needs {' or '.join(names)}, and there is none on PATH")
