"""A part of the committed sample, for tests that need only a small export."""

import shutil
from pathlib import Path


def part_of(sample: Path, exports: Path, *, batches: int = 1, without: str = "") -> Path:
    """Copy what the sample says of kernels and its last batches of hosts to `exports`, without the folder of one system."""
    every = sorted({path.name.partition(".")[0] for path in (sample / "tolaria" / "system_state").iterdir()})
    left = set(every[:-batches])

    def left_out(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if name == without or name.partition(".")[0] in left}

    shutil.copytree(sample, exports, ignore=left_out)
    return exports
