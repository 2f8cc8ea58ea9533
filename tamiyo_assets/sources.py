"""Contract tables as the pure packages read them, and what is derived from them before any feature."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from schemas.contracts import TABLES
from schemas.splits import split_of
from tamiyo_assets.resources.tables import TableStore


def read_contracts(tables: TableStore, versions: Mapping[str, int | None] | None = None) -> dict[str, pa.Table]:
    """Every contract table's rows by name, of the given versions or the current ones; one without rows is typed and empty.

    With versions, tables that others write meanwhile are still read as they were.
    """
    found = {name: tables.version(name) for name in TABLES} if versions is None else versions
    return {name: tables.read(name, version=found.get(name)) for name in TABLES}


def training_hosts(contracts: Mapping[str, pa.Table]) -> set[str] | None:
    """Blueprint ids of the hosts that the split gives to training; None where no packet names its host."""
    hosts = pc.unique(contracts["tolaria.system_state"].column("blueprint_id")).to_pylist()
    named = {host for host in hosts if host}
    return {host for host in named if split_of(host) == "train"} if named else None
