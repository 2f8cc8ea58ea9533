"""The example of `docs/bundle.md` runs as it stands."""

import re
from pathlib import Path

import pytest

from tests.gnn.bundle.conftest import Home, home, published, trained  # noqa: F401 - fixtures
from tests.gnn.online.conftest import metadata_tables
from tests.gnn.online.conftest import packet as state


def test_the_example_decides(repository: Path, home: Home, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    build_id = home.inputs().build_id
    (home.path / "current").symlink_to(f"bundles/{build_id}")
    (code,) = re.findall(r"```python\n(.*?)```", (repository / "docs" / "bundle.md").read_text(), flags=re.DOTALL)
    exec(code, {"HOME": home.path, "tables": metadata_tables(), "packet": state()})
    assert capsys.readouterr().out.split()[-1] == build_id
