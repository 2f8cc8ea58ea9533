"""Declare Simic's table: registry snapshots of the offline trainer, one flat JSON object per registry."""

from typing import Final

import pyarrow as pa

from schemas.contracts.table import Column, Folder, Presence, Table

_SENT: Final = Presence.EXPLICIT

REGISTRY_SNAPSHOT: Final = Table(
    name="simic.registry_snapshot",
    description="One row a registry and key; the rows of the newest arrival of a registry are its current snapshot.",
    key=("registry", "key"),
    event_time=None,
    by_arrival=True,
    columns=(
        Column("registry", pa.string(), "Name of the registry, from `<name>_registry.json`.", presence=_SENT, nullable=False),
        Column("key", pa.string(), "Category.", presence=_SENT, nullable=False),
        Column("index", pa.int64(), "Simic's index of it; 0 means missing and is no index.", presence=_SENT, low=1),
    ),
)

TABLES: Final = (REGISTRY_SNAPSHOT,)

FOLDERS: Final = (
    Folder(
        path="simic/registry_snapshot",
        description="`<name>_registry.json`: {key: index}.",
        tables=(REGISTRY_SNAPSHOT.name,),
        extensions=(".json", ".parquet"),
    ),
)
