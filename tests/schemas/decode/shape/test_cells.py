"""Cells of Parquet columns: a bad one costs its row; times of every type mean the same; damage costs its row group."""

import datetime as dt
import io
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.contracts import FOLDERS, TABLES
from schemas.decode import Limits
from schemas.decode.again import Kept, decode_again
from tests.schemas.decoding import Result, decode, decode_lines

FOLDER, SEEDS = "kasmina/seed_state", "kasmina.seed_state"
NOW = 1_700_000_000_123_456_789
MOST = 2**63 - 1


def parquet(columns: dict[str, Any], **how: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **how)
    return sink.getvalue()


def seeds(count: int, **more: Any) -> dict[str, Any]:
    ids = {"training_run_id": ["r"] * count, "seed_id": [f"s{n}" for n in range(count)], "timestamp_ns": range(5, count + 5)}
    return {name: value if isinstance(value, pa.Array) else pa.array(list(value)) for name, value in (ids | more).items()}


DOUBLES = pa.map_(pa.string(), pa.float64())
BAD: dict[str, tuple[str, Any]] = {
    "a word for an integer": ("global_step", ["1", "n/a", "3"]),
    "a fraction for an integer": ("global_step", [1.0, 2.5, 3.0]),
    "infinity for an integer": ("global_step", [1.0, math.inf, 3.0]),
    "an inexact float for an integer": ("global_step", [1.0, 2.0**53 + 2, 3.0]),
    "a fraction in decimal": ("layer_depth", [Decimal("1.0"), Decimal("2.5"), Decimal("3.0")]),
    "a word for a float": ("learning_rate", ["1", "n/a", "3"]),
    "a double beyond float32": ("learning_rate", [1.0, 1e300, 3.0]),
    "a word for a truth": ("quarantine_only", ["true", "perhaps", "0"]),
    "two for a truth": ("quarantine_only", [1, 2, 0]),
    "bytes that are no text": ("policy_version", pa.array([b"a", b"\xff", b"c"])),
    "bytes that are no id": ("seed_id", pa.array([b"a", b"\xc3\x28", b"c"])),
    "a list with a NULL": ("monitored_layers", [["a"], [None], []]),
    "a list with bytes that are no text": ("monitored_layers", pa.array([[b"a"], [b"x", b"\xff"], []])),
    "a map with words for numbers": ("metrics", pa.array([[("a", "1")], [("a", "x")], []], pa.map_(pa.string(), pa.string()))),
    "a map with a double beyond float32": (
        "metrics",
        pa.array([[("a", 1.0)], [("a", 1e300)], []], DOUBLES),
    ),
    "a word for a time": ("timestamp_ns", ["5", "soon", "7"]),
    "a day that is none": ("timestamp_ns", ["2024-02-29", "2023-02-29", "2023-02-28"]),
    "an inexact float for a time": ("timestamp_ns", [5.0, float(NOW), 7.0]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_cell_costs_its_own_row(tmp_path: Path, case: str) -> None:
    column, values = BAD[case]
    result = decode(tmp_path, FOLDER, "x.parquet", parquet(seeds(3, **{column: values})))
    assert len(result.rows(SEEDS)) == 2
    (reject,) = result.rejects["rejects.kasmina_seed_state"]
    assert (reject["reason"], reject["position"], reject["records"]) == ("bad_value", 1, 1)
    assert reject["message"].startswith(f"{column}: expected ")
    assert column in json.loads(reject["raw"])
    assert result.balanced()


@pytest.mark.parametrize("case", BAD)
def test_a_rejected_row_stays_rejected_when_it_is_read_again(tmp_path: Path, case: str) -> None:
    column, values = BAD[case]
    (reject,) = again(decode(tmp_path, FOLDER, "x.parquet", parquet(seeds(3, **{column: values}))))
    assert (reject["reason"] in ("bad_value", "wrong_columns"), reject["position"]) == (True, 1)


def again(result: Result) -> list[dict[str, Any]]:
    """What the kept bytes of the rejects give today."""
    kept = [Kept(row["position"], row["reason"], row["raw"]) for row in result.rejects["rejects.kasmina_seed_state"]]
    found = decode_again(FOLDERS[FOLDER], f"{FOLDER}/x.parquet", "d", kept, Limits())
    assert found.tables == {}
    return [row for rejects in found.rejects.values() for row in rejects.to_pylist()]


def test_a_wrapped_time_is_kept_as_it_was_and_stays_rejected(tmp_path: Path) -> None:
    for year in (1, 1600, 2300, 9999):
        moments = pa.array([dt.datetime(year, 6, 1, tzinfo=dt.UTC)], pa.timestamp("us"))
        data = parquet(seeds(1, timestamp_ns=moments), use_deprecated_int96_timestamps=True)
        result = decode(tmp_path, FOLDER, "x.parquet", data)
        (reject,) = result.rejects["rejects.kasmina_seed_state"]
        assert reject["reason"] == "time_out_of_range"
        assert json.loads(reject["raw"])["timestamp_ns"] == f"{year:04d}-06-01T00:00:00"
        assert [row["reason"] for row in again(result)] == ["time_out_of_range"]


def test_invalid_text_in_a_column_of_strings_costs_its_own_row(tmp_path: Path) -> None:
    data = parquet(seeds(3, policy_version=["aa", "@@", "cc"]), compression="none", use_dictionary=False).replace(
        b"@@", b"\xff\xff"
    )
    result = decode(tmp_path, FOLDER, "x.parquet", data)
    assert ([row["policy_version"] for row in result.rows(SEEDS)], result.reasons) == (["aa", "cc"], ["bad_value"])


def test_thousands_of_bad_cells_and_columns_are_told_one_by_one(tmp_path: Path) -> None:
    words = [f"w{n}" if n % 2 else str(n) for n in range(1, 2001)]
    result = decode(tmp_path, FOLDER, "x.parquet", parquet(seeds(2000, global_step=words, learning_rate=words)))
    assert len(result.rows(SEEDS)) == 1000 and result.reasons == ["bad_value"] * 1000


def test_nan_and_numbers_as_text_are_what_pandas_writes(tmp_path: Path) -> None:
    columns = {
        "global_step": [1.0, math.nan, 3.0],
        "layer_depth": ["1", "nan", " 3 "],
        "quarantine_only": [1.0, math.nan, 0.0],
        "stage": [1.0, math.nan, 3.0],
    }
    result = decode(tmp_path, FOLDER, "x.parquet", parquet(seeds(3, **columns)))
    found = [tuple(row[name] for name in columns) for row in result.rows(SEEDS)]
    assert found == [(1, 1, True, "DORMANT"), (None, None, None, None), (3, 3, False, "TRAINING")]
    lines = decode_lines(tmp_path, FOLDER, {"training_run_id": "r", "seed_id": "s", "timestamp_ns": 5, "global_step": "NaN"})
    assert lines.row(SEEDS)["global_step"] is None


def test_a_name_that_an_enum_lacks_is_a_reject_in_every_format(tmp_path: Path) -> None:
    stages = ["TRAINING", "NEW", "99"]
    result = decode(tmp_path, FOLDER, "x.parquet", parquet(seeds(3, stage=stages)))
    assert ([row["stage"] for row in result.rows(SEEDS)], result.reasons) == (["TRAINING", "99"], ["unknown_enum_name"])


def wide(dictionary: pa.Array) -> list[pa.Array]:
    return [dictionary, dictionary.dictionary_encode(), dictionary.cast(pa.large_string())]


def test_texts_of_every_arrow_type_are_texts(tmp_path: Path) -> None:
    for number, array in enumerate(wide(pa.array(["a", None, "c"]))):
        result = decode(tmp_path, FOLDER, "x.parquet", parquet(seeds(3, policy_version=array)))
        assert [row["policy_version"] for row in result.rows(SEEDS)] == ["a", None, "c"], number


TIMES: dict[str, pa.Array] = {
    "s": pa.array([NOW // 10**9], pa.timestamp("s")),
    "ms": pa.array([NOW // 10**6], pa.timestamp("ms", "UTC")),
    "us": pa.array([NOW // 10**3], pa.timestamp("us", "Europe/Berlin")),
    "ns": pa.array([NOW], pa.timestamp("ns", "+02:00")),
    "a day": pa.array([NOW // 10**9 // 86400], pa.int32()).cast(pa.date32()),
    "text": pa.array(["2023-11-14T22:13:20.123456789"]),
    "text in lower case": pa.array(["2023-11-14t22:13:20.123456789z"]),
    "text with a zone": pa.array(["2023-11-15 00:13:20.123456789+02:00"]),
    "digits": pa.array([str(NOW)]),
    "u64": pa.array([NOW], pa.uint64()),
    "words": pa.array(["2023-11-14T22:13:20.123456789Z"]).dictionary_encode(),
}
PRECISION = {"s": 10**9, "ms": 10**6, "us": 10**3, "a day": 86400 * 10**9}


@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.parametrize("schema", [True, False])
def test_a_time_of_any_type_means_the_same_moment_in_every_table(tmp_path: Path, kind: str, schema: bool) -> None:
    expected = NOW // PRECISION.get(kind, 1) * PRECISION.get(kind, 1)
    for folder in FOLDERS.values():
        for name in folder.tables:
            times = [column.name for column in TABLES[name].columns if column.is_time]
            keys = {
                key: pa.array(["a"] if pa.types.is_string(TABLES[name].column[key].type) else [1]) for key in TABLES[name].key
            }
            data = parquet(keys | dict.fromkeys(times, TIMES[kind]), store_schema=schema)
            result = decode(tmp_path, folder.path, "x.parquet", data)
            # tables with the same key are alike as far as these columns go
            (row,) = (row for table in result.tables for row in result.rows(table))
            assert {row[time] for time in times if time in row} <= {expected}, name


OUTSIDE: dict[str, pa.Array] = {
    f"{unit} {value}": pa.array([value]).cast(pa.timestamp(unit))
    for unit in ("s", "ms", "us")
    for value in (MOST // (900 if unit == "us" else 2000), -(2**50), -1, MOST // 10 ** {"s": 9, "ms": 6, "us": 3}[unit] + 1)
} | {
    "the year 9999": pa.array(["9999-12-31T23:59:59Z"]),
    "the year 1600": pa.array(["1600-01-01"]),
    "before 1970": pa.array([-1]),
    "digits before 1970": pa.array(["-1"]),
    "digits beyond": pa.array(["9223372036854775808"]),
    "u64 beyond": pa.array([2**63], pa.uint64()),
    "a day beyond": pa.array([2**31 - 1], pa.int32()).cast(pa.date32()),
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_a_time_that_does_not_fit_is_a_reject_and_never_another_time(tmp_path: Path, kind: str) -> None:
    result = decode(tmp_path, FOLDER, "x.parquet", parquet(seeds(1, timestamp_ns=OUTSIDE[kind])))
    assert (result.tables, result.reasons) == ({}, ["time_out_of_range"])
    assert result.balanced()


def test_times_in_json_mean_the_same(tmp_path: Path) -> None:
    report = {"training_run_id": "r", "report_id": "x"}
    good = ["2023-11-14T22:13:20.123456789", "2023-11-14t22:13:20.123456789z", "2023-11-15T00:13:20.123456789+02:00"]
    for text in good:
        found = decode_lines(tmp_path, "tamiyo/field_report", report | {"issued_at": text})
        assert found.row("tamiyo.field_report")["issued_at_ns"] == NOW
        found = decode_lines(tmp_path, "urza/blueprint", {"blueprint_id": "b", "exported_at": text})
        assert found.row("urza.blueprint")["exported_at_ns"] == NOW
        found = decode_lines(tmp_path, FOLDER, {"training_run_id": "r", "seed_id": "s", "timestamp_ns": text})
        assert found.row(SEEDS)["timestamp_ns"] == NOW
    for text in ("9999-12-31T23:59:59Z", "1960-01-01T00:00:00Z", "1600-01-01t00:00:00z", "0001-01-01T00:00:00Z"):
        assert decode_lines(tmp_path, "tamiyo/field_report", report | {"issued_at": text}).reasons == ["time_out_of_range"]
        assert decode_lines(tmp_path, "urza/blueprint", {"blueprint_id": "b", "exported_at": text}).reasons == [
            "time_out_of_range"
        ]
    for number, rows in ((5.0, 1), (2.0**53, 1), (2.0**53 + 2, 0), (float(NOW), 0)):
        found = decode_lines(tmp_path, "urza/blueprint", {"blueprint_id": "b", "exported_at": number})
        assert (len(found.rows("urza.blueprint")), found.reasons) == (rows, [] if rows else ["bad_value"])
        for field in ("timestamp_ns", "global_step"):
            record = {"training_run_id": "r", "seed_id": "s", "timestamp_ns": 5, field: number}
            found = decode_lines(tmp_path, FOLDER, record)
            assert (len(found.rows(SEEDS)), found.reasons) == (rows, [] if rows else ["bad_value"])


def test_a_column_twice_is_a_reject_that_stands_for_all_rows(tmp_path: Path) -> None:
    sink = io.BytesIO()
    columns = [pa.array(values) for values in (["r"] * 3, ["a", "b", "c"], [1, 2, 3], ["x", "y", "z"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["training_run_id", "seed_id", "timestamp_ns", "seed_id"]), sink)
    result = decode(tmp_path, FOLDER, "x.parquet", sink.getvalue())
    (reject,) = result.rejects["rejects.kasmina_seed_state"]
    assert (reject["reason"], reject["records"], "seed_id" in reject["message"]) == ("wrong_columns", 3, True)
    assert result.balanced()


def groups(tmp_path: Path, **more: Any) -> tuple[bytearray, list[tuple[int, int]]]:
    """Three row groups of 100 seeds, and where the data of each lies."""
    data = parquet(seeds(300, **more), row_group_size=100, compression="snappy")
    found = pq.ParquetFile(io.BytesIO(data)).metadata
    spans = []
    for index in range(3):
        columns = [found.row_group(index).column(place) for place in range(found.num_columns)]
        starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
        spans.append((min(starts), max(start + c.total_compressed_size for start, c in zip(starts, columns, strict=True))))
    return bytearray(data), spans


def test_a_damaged_row_group_costs_itself_with_its_number_of_rows(tmp_path: Path) -> None:
    data, spans = groups(tmp_path)
    data[spans[1][0] : spans[1][1]] = b"\xff" * (spans[1][1] - spans[1][0])
    for limits in (Limits(), Limits(chunk_records=30)):
        result = decode(tmp_path, FOLDER, "x.parquet", bytes(data), limits)
        (reject,) = result.rejects["rejects.kasmina_seed_state"]
        assert (reject["reason"], reject["position"], reject["records"]) == ("unreadable_file", 100, 100)
        assert [row["position"] for row in result.rows(SEEDS)] == [*range(100), *range(200, 300)]
        assert result.balanced() and sum(result.rows_read.values()) == 300


def test_damage_in_a_column_of_no_contract_costs_nothing(tmp_path: Path) -> None:
    note = "n" * 64
    data = parquet(seeds(2, zzz=[note, note]), compression="none", use_dictionary=False)
    whole = decode(tmp_path, FOLDER, "x.parquet", data)
    assert len(whole.rows(SEEDS)) == 2
    at = data.index(note.encode())
    damaged = data[: at - 12] + b"\xff" * 12 + data[at:]
    result = decode(tmp_path, FOLDER, "x.parquet", damaged)
    assert (len(result.rows(SEEDS)), result.reasons) == (2, []), result.rejects


def test_rejected_rows_show_columns_of_any_type_and_time(tmp_path: Path) -> None:
    columns = seeds(2, seed_id=["a", None])
    extras: dict[str, pa.Array] = {f"t{u}": pa.array([0, MOST]).cast(pa.timestamp(u)) for u in ("ms", "us", "ns")}
    extras |= {f"d{u}": pa.array([0, MOST]).cast(pa.duration(u)) for u in ("s", "ms", "us", "ns")}
    extras |= {"zone": pa.array([0, MOST]).cast(pa.timestamp("us", "Nowhere/Land")), "nan": pa.array([0.0, math.nan])}
    extras |= {"list": pa.array([[0], [MOST]]).cast(pa.list_(pa.timestamp("us"))), "bytes": pa.array([b"", b"\xff\x00"])}
    extras |= {"struct": pa.StructArray.from_arrays([pa.array([0, MOST]).cast(pa.timestamp("us"))], ["at"])}
    result = decode(tmp_path, FOLDER, "x.parquet", parquet(columns | extras))
    (reject,) = result.rejects["rejects.kasmina_seed_state"]
    shown = json.loads(reject["raw"])
    assert (reject["reason"], shown.keys()) == ("missing_id", columns.keys() | extras.keys())
    assert shown["tus"].startswith("294247-01-10T04:00:54") and shown["struct"] == {"at": shown["tus"]}
    assert len(result.rows(SEEDS)) == 1


def rejected(result: Result) -> list[tuple[str, int]]:
    return sorted((row["reason"], row["position"]) for rows in result.rejects.values() for row in rows)


@pytest.mark.parametrize("name", ["x.ndjson", "x.parquet"])
def test_a_record_at_which_the_decoder_fails_costs_itself(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from schemas.decode.shape import rows as module

    real = module.limit_faults

    def broken(columns: Any, found: Any, limits: Limits) -> None:
        if "s7" in columns["seed_id"].to_pylist():
            raise ZeroDivisionError("a fault of ours")
        real(columns, found, limits)

    monkeypatch.setattr(module, "limit_faults", broken)
    lines = "".join(json.dumps({"training_run_id": "r", "seed_id": f"s{n}", "timestamp_ns": n + 5}) + "\n" for n in range(50))
    data = parquet(seeds(50)) if name == "x.parquet" else lines.encode()
    result = decode(tmp_path, FOLDER, name, data)
    assert len(result.rows(SEEDS)) == 49
    assert rejected(result) == [("bad_value", 7 if name == "x.parquet" else 8)]
    assert result.balanced()
