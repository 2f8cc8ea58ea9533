"""Count rejected records, and list exports that were refused because their rows break the rules of a table."""

import re
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from lake.accounting import weights
from lake.exports.ledger import Ledger, present
from lake.store.table_store import TableStore
from lake.store.validation import NOT_COMMITTED
from schemas.contracts import FOLDERS, Reason

_REFUSED: Final = re.compile(rf"table ([a-z_]+\.[a-z_]+): (.*)\. {NOT_COMMITTED}", re.DOTALL)


class Rejected(BaseModel):
    """Rejected records of one rejects table with one reason."""

    model_config = ConfigDict(frozen=True)

    table: str
    reason: str
    records: int


def reject_names(tables: TableStore) -> list[str]:
    """Return the names of the rejects tables that exist."""
    return [name for name in tables.names() if name.startswith("rejects.")]


def rejects_by_reason(tables: TableStore) -> list[Rejected]:
    """Return the counts of rejected records by rejects table and reason, largest first."""
    found = []
    for name in reject_names(tables):
        rejects = tables.read(name, columns=["reason", "records"])
        weighed = pa.table({"reason": rejects.column("reason"), "records": pa.array(weights(rejects), pa.int64())})
        counted = weighed.group_by("reason").aggregate([("records", "sum")])
        found += [Rejected(table=name, reason=r["reason"], records=r["records_sum"]) for r in counted.to_pylist()]
    return sorted(found, key=lambda r: (-r.records, r.table, r.reason))


def refused_exports(home: Path, tables: TableStore) -> dict[str, dict[str, str]]:
    """Return contract table -> export file -> the rules that its rows break, for exports still under the exports root."""
    found: dict[str, dict[str, str]] = {}
    digests: set[str] | None = None
    for name in reject_names(tables):
        for batch in tables.batches(name, columns=["export_digest", "file", "reason", "message"]):
            unread = pc.equal(batch.column("reason"), Reason.UNREADABLE_FILE.value)
            for row in batch.filter(pc.and_(unread, pc.match_substring(batch.column("message"), NOT_COMMITTED))).to_pylist():
                if digests is None:
                    digests = {entry.digest for entry in present(Ledger(home).entries(), FOLDERS).values()}
                said = _REFUSED.search(row["message"])
                if said is not None and row["export_digest"] in digests:
                    found.setdefault(said[1], {})[row["file"]] = said[2]
    return found
