"""Check every digest, version and link of a home, and repair what can be repaired (`tamiyo doctor`)."""

from datetime import timedelta
from pathlib import Path

from lake.exports.folders import Exports
from lake.store.table_store import TableStore
from tamiyo.doctor.finding import Finding
from tamiyo.doctor.published import examine_bundles, examine_norms, examine_registries, examine_warehouse
from tamiyo.doctor.storage import (
    examine_digests,
    examine_feeds,
    examine_ledger,
    examine_pins,
    examine_retirements,
    examine_tables,
)

__all__ = ["Finding", "examine"]


def examine(
    home: Path, *, exports: Exports | None = None, repair: bool = False, silent_after: timedelta | None = None
) -> list[Finding]:
    """Return everything that is wrong in a home; empty if all is well.

    With `repair`, what can be repaired is repaired, and the finding says how. Damaged contract tables are built again from
    `exports`, if these are given and hold everything that the tables were made from. `silent_after` is how long an upstream
    system may send nothing new; if None, that is not checked.
    """
    tables = TableStore(home)
    return [
        *examine_registries(home, repair=repair),
        *examine_norms(home, repair=repair),
        *examine_ledger(home),
        *examine_retirements(home),
        *(examine_feeds(home, silent_after) if silent_after is not None else ()),
        *examine_digests(home, repair=repair),
        *examine_tables(home, tables, exports, repair=repair),
        *examine_pins(home, tables, repair=repair),
        *examine_bundles(home, repair=repair),
        *examine_warehouse(home, tables, repair=repair),
    ]
