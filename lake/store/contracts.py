"""Read contract tables for packages that do not know the store, with columns that are derived before any feature."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from lake.store.table_store import TableStore
from schemas.splits import data_set_of, is_published_on


def read_contracts(tables: TableStore, columns: Mapping[str, Sequence[str] | None]) -> dict[str, pa.Table]:
    """Return the rows of some contract tables by name, with the named columns (None: all); empty tables are typed too."""
    return {name: tables.read(name, columns=chosen) for name, chosen in columns.items()}


def training_hosts(contracts: Mapping[str, pa.Table], held_out: str | None) -> set[str] | None:
    """Return the blueprint ids of hosts on which the published weights are trained; None if no packet names its host.

    Hosts of the data set `held_out` are left out (experiments are named `<data set>/<architecture>`).
    """
    packets = contracts["tolaria.system_state"].select(["blueprint_id", "experiment_name"])
    named = packets.filter(pc.not_equal(packets["blueprint_id"], "")).group_by(["blueprint_id", "experiment_name"])
    pairs = named.aggregate([]).to_pylist()
    if not pairs:
        return None
    kept_out = {row["blueprint_id"] for row in pairs if held_out and data_set_of(row["experiment_name"]) == held_out}
    return {row["blueprint_id"] for row in pairs if is_published_on(row["blueprint_id"])} - kept_out
