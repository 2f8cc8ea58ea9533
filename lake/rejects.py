"""Rejected records, counted."""

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from lake.accounting import weights
from lake.store.table_store import TableStore


class Rejected(BaseModel):
    """Rejected records of one rejects table with one reason."""

    model_config = ConfigDict(frozen=True)

    table: str
    reason: str
    records: int


def reject_names(tables: TableStore) -> list[str]:
    """The rejects tables that were written."""
    return [name for name in tables.names() if name.startswith("rejects.")]


def rejects_by_reason(tables: TableStore) -> list[Rejected]:
    """Rejected records per rejects table and reason, most first."""
    found = []
    for name in reject_names(tables):
        rejects = tables.read(name, columns=["reason", "records"])
        weighed = pa.table({"reason": rejects.column("reason"), "records": pa.array(weights(rejects), pa.int64())})
        counted = weighed.group_by("reason").aggregate([("records", "sum")])
        found += [Rejected(table=name, reason=r["reason"], records=r["records_sum"]) for r in counted.to_pylist()]
    return sorted(found, key=lambda r: (-r.records, r.table, r.reason))
