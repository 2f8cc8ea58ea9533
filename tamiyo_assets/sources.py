"""Contract tables as the pure packages read them, and what is derived from them before any feature."""

import pyarrow as pa
import pyarrow.compute as pc

from schemas.contracts import TABLES
from schemas.splits import split_of
from tamiyo_assets.resources.tables import TableStore


def read_contracts(tables: TableStore) -> dict[str, pa.Table]:
    """Every contract table's current rows by name; one that was never written is typed and empty."""
    return {name: tables.read(name) for name in TABLES}


def training_hosts(contracts: dict[str, pa.Table]) -> set[str] | None:
    """Blueprint ids of the hosts that the split gives to training; None where no packet names its host."""
    hosts = pc.unique(contracts["tolaria.system_state"].column("blueprint_id")).to_pylist()
    named = {host for host in hosts if host}
    return {host for host in named if split_of(host) == "train"} if named else None
