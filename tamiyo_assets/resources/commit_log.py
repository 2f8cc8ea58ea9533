"""The newest commit of a Delta table, read from its log without opening the table."""

import json
import os
from pathlib import Path

LOG = "_delta_log"
_LENGTH = len("00000000000000000000.json")


def commit_file(table: Path, version: int) -> Path:
    """The file of one commit."""
    return table / LOG / f"{version:020d}.json"


def newest_version(table: Path) -> int | None:
    """The newest version that has its commit file; None where there is no log, or only a checkpoint."""
    try:
        names = os.listdir(table / LOG)  # noqa: PTH208 - paths of thousands of commits cost more than the rest
    except (FileNotFoundError, NotADirectoryError):
        return None
    newest = max((name for name in names if len(name) == _LENGTH and name.endswith(".json")), default="")
    return int(newest[:-5]) if newest[:-5].isdigit() else None


def transactions_in(table: Path, version: int) -> dict[str, int]:
    """App transactions of one commit by key; none where its file is gone or damaged (opening the table tells which)."""
    try:
        lines = commit_file(table, version).read_bytes().splitlines()
        actions = [json.loads(line)["txn"] for line in lines if line.startswith(b'{"txn"')]
        return {action["appId"]: int(action["version"]) for action in actions}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
