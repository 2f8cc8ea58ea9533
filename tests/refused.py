"""Exports whose rows the rules refuse: a packet without an id, which no decoder lets through, beside a sound one."""

from pathlib import Path
from typing import Final

import pyarrow as pa
import pytest

from lake.ingest import intake
from schemas.decode import Decoded

STATES: Final = "tolaria.system_state"


def refused_exports(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write `bad.ndjson` and `good.ndjson` under `root` and let the decoder drop the id of the bad one; return their folder."""
    folder = root / "tolaria" / "system_state"
    folder.mkdir(parents=True)
    for name in ("bad", "good"):
        line = f'{{"training_run_id": "{name}", "packet_id": "p", "timestamp_ns": 1}}\n'
        (folder / f"{name}.ndjson").write_text(line)
    chunks = intake._chunks

    def faulty(*arguments: object) -> list[Decoded]:
        found = list(chunks(*arguments))  # type: ignore[arg-type]  # stands in for it, whatever it takes
        for chunk in found:
            rows = chunk.tables[STATES]
            place = rows.schema.get_field_index("packet_id")
            ids = [None if run == "bad" else "p" for run in rows.column("training_run_id").to_pylist()]
            chunk.tables[STATES] = rows.set_column(place, rows.schema.field(place), pa.array(ids, pa.string()))
        return found

    monkeypatch.setattr(intake, "_chunks", faulty)
    return folder
