"""Pictures are PNGs, also of nothing, and the same for the same data."""

from pathlib import Path

import pyarrow as pa

from gnn.norms.pictures import bands, growth
from gnn.registry.refresh import load_records, refresh
from schemas.derived.features import EWMA

PNG = b"\x89PNG\r\n\x1a\n"


def test_growth_of_a_registry(tmp_path: Path) -> None:
    home = tmp_path / "registries"
    for size in (0, 3, 100):
        refresh(home, {"parameter_target": {f"k{number}" for number in range(size)}})
    records = load_records(home)
    picture = growth("parameter_target", records["parameter_target"])
    assert picture.startswith(PNG)
    assert picture == growth("parameter_target", records["parameter_target"])
    assert growth("seed", records["seed"]).startswith(PNG)


def test_bands_of_norms() -> None:
    rows = [
        {"training_run_id": f"r{n}", "metric": "loss", "mean": 0.5 + n, "var": 0.1, "count": 3, "timestamp_ns": n or None}
        for n in range(4)
    ]
    table = pa.Table.from_pylist(rows, EWMA)
    assert bands(table).startswith(PNG)
    assert bands(table) == bands(table.take([3, 1, 0, 2]))
    assert bands(EWMA.empty_table()).startswith(PNG)
