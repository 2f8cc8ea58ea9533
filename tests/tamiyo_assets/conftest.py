"""Fixtures of the pipeline's tests."""

from collections.abc import Iterator

import pytest

from tests.tamiyo_assets.webhook import Webhook


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """A local webhook."""
    found = Webhook()
    yield found
    found.close()
