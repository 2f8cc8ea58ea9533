"""Find phrases that we do not use (`wording.txt`) in code and pages: `python -m tests.docs.wording` prints them."""

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

LIST = Path(__file__).with_name("wording.txt")
READ = ("*.py", "*.md", "*.toml", "*.html")
FOLDERS = ("schemas", "lake", "gnn", "recorder", "tamiyo_assets", "tamiyo", "benchmarks", "docs", ".")


@cache
def phrases() -> list[tuple[re.Pattern[str], str]]:
    """(phrase, what to write instead)."""
    lines = (line for line in LIST.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#"))
    pairs = (line.rpartition(" => ") for line in lines)
    return [(re.compile(pattern), instead) for pattern, _, instead in pairs]


def files(repository: Path) -> Iterator[Path]:
    """What is looked at: sources of the packages, pages, and files in the root itself."""
    for folder in FOLDERS:
        for pattern in READ:
            found = (repository / folder).glob(pattern) if folder == "." else (repository / folder).rglob(pattern)
            yield from (path for path in found if "_pb2" not in path.name and not path.is_symlink())


def found(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, phrase, what to write instead)."""
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern, instead in phrases():
            match = pattern.search(line)
            if match:
                yield number, match[0], instead


def faults(repository: Path) -> list[str]:
    """All phrases, as `file:line: ...`."""
    return [
        f"{path.relative_to(repository)}:{number}: {phrase!r}; {instead}"
        for path in sorted(files(repository))
        for number, phrase, instead in found(path.read_text(encoding="utf-8"))
    ]


if __name__ == "__main__":
    said = faults(Path.cwd())
    print("\n".join(said) if said else "no phrase of tests/docs/wording.txt")
    sys.exit(bool(said))
