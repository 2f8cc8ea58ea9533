"""List every derived table by name: its declaration and Arrow schema. Imports no torch."""

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

from schemas.derived.coverage import COVERAGE
from schemas.derived.features import FEATURES
from schemas.derived.norms import NORMS, REGISTRY_TABLES
from schemas.derived.training import TRAINING
from schemas.table_declaration import DeclaredColumn, DeclaredTable

VERSIONS: Final = DeclaredTable(
    "operations.versions",
    (
        DeclaredColumn("table", pa.string(), "Table, <schema>.<table>."),
        DeclaredColumn(
            "training_run",
            pa.string(),
            "Training run whose rows the digest is of; NULL for the whole table.",
            nullable=True,
        ),
        DeclaredColumn("digest", pa.string(), "SHA-256 (hex) of the content of the rows, whatever their order and files."),
        DeclaredColumn("rows", pa.int64(), "Rows of the table, or of the training run in it.", low=0),
    ),
    keys=(("table", "training_run"),),
)
RETIRED: Final = DeclaredTable(
    "operations.retired",
    (
        DeclaredColumn("training_run_id", pa.string(), "Training run that is left out of all that is derived."),
        DeclaredColumn("reason", pa.string(), "Why it was retired."),
        DeclaredColumn("retired_at_ns", pa.int64(), "When it was retired [ns since 1970 UTC].", low=0),
        DeclaredColumn("by", pa.string(), "User who retired it."),
    ),
    keys=(("training_run_id",),),
)
DECLARED: Final[Mapping[str, DeclaredTable]] = {
    **FEATURES,
    **COVERAGE,
    **NORMS,
    **REGISTRY_TABLES,
    **TRAINING,
    VERSIONS.name: VERSIONS,
    RETIRED.name: RETIRED,
}
DERIVED: Final[Mapping[str, pa.Schema]] = {name: table.arrow_schema for name, table in DECLARED.items()}
