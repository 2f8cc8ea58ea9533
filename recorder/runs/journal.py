"""Keep a recording's own memory: which hosts are done, and which files are about to get their names.

It lives in one hidden file beside the exports (readers skip names that start with a dot). A batch of files is written under
hidden names first, then the journal lists them, then they are renamed. If the process is killed in between, the next start
finishes the renames, so no host is ever exported twice or by half.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recorder.exports import write_whole
from recorder.runs.plan import RecordPlan
from schemas.errors import RecordingError

_FREE = {"exports", "minutes", "hosts", "format", "workers", "rotate_hosts"}  # what may differ when a recording goes on


class Journal(BaseModel):
    """State of the recording of one seed under one exports root."""

    model_config = ConfigDict(extra="forbid")

    grid: str
    risks: dict[str, float] | None = None
    done: list[int] = Field(default_factory=list)
    renames: list[tuple[str, str]] = Field(default_factory=list)


def grid_digest(plan: RecordPlan) -> str:
    """Return the SHA-256 of everything in a plan that decides what a host shows."""
    content = plan.model_dump(mode="json", exclude=_FREE)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def journal_path(plan: RecordPlan) -> Path:
    """Return the journal's file: hidden, beside the exports, one per seed."""
    return plan.exports / f".recorder-s{plan.seed}.json"


def load_journal(plan: RecordPlan) -> Journal:
    """Read the journal, finish what a killed recording left half renamed, and check that the plan is the same.

    Raises RecordingError if the file is damaged or belongs to another grid.
    """
    path = journal_path(plan)
    if not path.exists():
        return Journal(grid=grid_digest(plan))
    try:
        journal = Journal.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RecordingError(
            f"{path.name}: expected the journal of a recording, found {error.error_count()} errors; "
            "remove it and the exports of this seed, or record with another seed"
        ) from error
    if journal.grid != grid_digest(plan):
        raise RecordingError(
            f"{path.name}: expected a recording with grid {grid_digest(plan)[:12]}, found one with {journal.grid[:12]}; "
            "go on with the old settings, or record with another seed"
        )
    return _finish_renames(plan, journal)


def save_journal(plan: RecordPlan, journal: Journal) -> None:
    """Write the journal, whole."""
    write_whole(journal_path(plan), journal.model_dump_json().encode())


def _finish_renames(plan: RecordPlan, journal: Journal) -> Journal:
    for beside, name in journal.renames:
        source = plan.exports / beside
        if source.exists():
            source.replace(plan.exports / name)
    if journal.renames:
        journal = journal.model_copy(update={"renames": []})
        save_journal(plan, journal)
    return journal


def publish(plan: RecordPlan, journal: Journal, files: Sequence[tuple[Path, bytes]]) -> Journal:
    """Give a batch of files (paths below the exports root) their names together with the journal's new state."""
    renames = []
    for path, content in files:
        beside = path.with_name(f".{path.name}.part")
        write_whole(beside, content)
        renames.append((str(beside.relative_to(plan.exports)), str(path.relative_to(plan.exports))))
    noted = journal.model_copy(update={"renames": renames})
    save_journal(plan, noted)
    return _finish_renames(plan, noted)
