"""Good exports of every contract and format, and what can happen to their bytes."""

import io
import json
import random
from dataclasses import dataclass

import pyarrow.parquet as pq
from google.protobuf import json_format

from schemas.decode import decode_packets
from schemas.decode.read.batches import message_class
from schemas.leyline import leyline_pb2 as pb
from tests.schemas.decoding import binpb, packed, wal

RECORDS = 12


@dataclass(frozen=True)
class Export:
    """A good file: where it belongs, its bytes, and where each record lies in them (none for packed files)."""

    folder: str
    name: str
    data: bytes
    spans: tuple[tuple[int, int], ...] = ()


def packet(number: int) -> pb.SystemStatePacket:
    """A system state with everything inside."""
    found = pb.SystemStatePacket(
        packet_id=f"packet-{number}", training_run_id="run", timestamp_ns=1_795_412_039_000_000_000 + number, training_loss=0.5
    )
    found.training_metrics.update({"loss": 0.5, "samples_per_s": 100.0 + number})
    found.layers.add(layer_id="l0", loss=0.25)
    found.seed_states.add(seed_id="s0", stage=3, alpha=0.5, monitored_layers=["l0"])
    return found


def messages(name: str) -> list[bytes]:
    """Payloads of good messages of one kind."""
    return [message(name, number).SerializeToString(deterministic=True) for number in range(RECORDS)]


def message(name: str, number: int) -> object:
    """A good message with the key of its contract."""
    if name == "SystemStatePacket":
        return packet(number)
    found = message_class(name)()
    values = {"seed_id": f"s{number}", "command_id": f"c{number}", "report_id": f"r{number}", "packet_id": f"p{number}"}
    values |= {
        "blueprint_id": f"b{number}",
        "training_run_id": "run",
        "timestamp_ns": 1000 + number,
        "source_subsystem": "weatherlight",
    }
    for field in found.DESCRIPTOR.fields:
        if field.name in values:
            setattr(found, field.name, values[field.name])
        elif field.name in ("issued_at", "timestamp"):
            getattr(found, field.name).seconds = 1_700_000_000 + number
    if name == "TelemetryPacket":
        found.metrics.add(name="m", value=1.5)
        found.events.add(description="tezzeret.compile_succeeded", attributes={"blueprint_id": "b", "strategy": "eager"})
    return found


_URZA = {
    "descriptor": {"name": "x", "risk": 0.5},
    "extras": {
        "bsds": {"hazard_band": "LOW", "issued_at": "2026-01-01T00:00:00Z"},
        "graph_metadata": {
            "layers": [{"layer_id": "l0", "type": "Linear"}, {"layer_id": "l1"}],
            "activations": [{"activation_id": "a0", "layer_id": "l0"}],
            "parameters": [{"parameter_id": "p0", "layer_ids": ["l0"]}],
            "adjacency": {"layer": [[0, 1, 0.5]]},
            "monitored_layers": [["s", 0]],
        },
    },
}

_FOLDERS = {
    "SystemStatePacket": "tolaria/system_state",
    "SeedState": "kasmina/seed_state",
    "BSDS": "urabrask/bsds",
    "TelemetryPacket": "weatherlight/telemetry",
    "AdaptationCommand": "tamiyo/command",
    "FieldReport": "tamiyo/field_report",
}


def _framed(folder: str, name: str, pieces: list[bytes]) -> Export:
    ends = [sum(map(len, pieces[: index + 1])) for index in range(len(pieces))]
    spans = tuple((end - len(piece), end) for piece, end in zip(pieces, ends, strict=True))
    return Export(folder, name, b"".join(pieces), spans)


def exports() -> list[Export]:
    """One good file of each contract and format."""
    found: list[Export] = []
    for name, folder in _FOLDERS.items():
        payloads = messages(name)
        found.append(_framed(folder, "x.binpb", [binpb([payload]) for payload in payloads]))
        found.append(_framed(folder, "x.wal", [wal([payload]) for payload in payloads]))
        lines = [json_format.MessageToJson(message_class(name).FromString(payload), indent=None) for payload in payloads]
        found.append(_framed(folder, "x.ndjson", [f"{line}\n".encode() for line in lines]))
        found += [Export(folder, f"x{extension}", packed(lines, extension)) for extension in (".ndjson.gz", ".ndjson.zst")]
    envelopes = [
        pb.BusEnvelope(message_type=1, payload=payload).SerializeToString() for payload in messages("SystemStatePacket")
    ]
    found.append(_framed("oona/envelope", "x.wal", [wal([envelope]) for envelope in envelopes]))
    urza = [json.dumps({"blueprint_id": f"b{number}"} | _URZA) for number in range(RECORDS)]
    found.append(_framed("urza/blueprint", "x.ndjson", [f"{line}\n".encode() for line in urza]))
    found.append(
        Export("simic/registry_snapshot", "seed_registry.json", json.dumps({f"k{n}": n + 1 for n in range(20)}).encode())
    )
    for table, rows in decode_packets(messages("SystemStatePacket")).items():
        sink = io.BytesIO()
        pq.write_table(rows, sink, row_group_size=4)
        folder = "kasmina/seed_state" if table == "kasmina.seed_state" else "tolaria/system_state"
        found.append(Export(folder, f"{table}.parquet", sink.getvalue()))
    return found


def mutate(data: bytes, chance: random.Random) -> tuple[bytes, tuple[int, int]]:
    """The bytes with one thing done to them, and the stretch of the original that it touched."""
    at = chance.randrange(len(data))
    size = min(chance.choice([1, 1, 1, 2, 4, 16]), len(data) - at)
    kind = chance.choice(["flip", "bit", "insert", "remove", "zero", "ones", "repeat", "cut", "borrow"])
    if kind == "cut":
        return data[:at], (at, len(data))
    if kind == "bit":
        return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :], (at, at + 1)
    if kind == "borrow":
        start = chance.randrange(len(data))
        return data[:at] + data[start : start + size] + data[at + size :], (at, at + size)
    new = {
        "flip": chance.randbytes(size),
        "insert": chance.randbytes(size) + data[at : at + size],
        "remove": b"",
        "zero": bytes(size),
        "ones": b"\xff" * size,
        "repeat": data[at : at + size] * chance.choice([2, 50]),
    }[kind]
    return data[:at] + new + data[at + size :], (at, at + size)


def damage(name: str, parts: list[bytes], chance: random.Random) -> tuple[bytes, set[int], str]:
    """A file made of pieces with one thing done to it: the bytes, the numbers of the pieces that it touched, and what it was.

    Pieces are records, or members of a packed file; of a Parquet file (one piece) they are row groups.
    """
    if name.endswith(".parquet"):
        return _damage_parquet(parts[0], chance)
    kind = chance.choice(["bytes", "bytes", "cut", "lost", "garbage", "zeros", "tail", "header"])
    piece = chance.randrange(len(parts))
    before, part, after = b"".join(parts[:piece]), parts[piece], b"".join(parts[piece + 1 :])
    if kind == "cut":
        at = chance.randrange(len(part))
        return before + part[:at], set(range(piece, len(parts))), kind
    if kind == "tail":
        rest = chance.choice([bytes(chance.randrange(1, 9000)), b"rest", b"\xff" * 20, part[:3]])
        return before + part + after + rest, set(), kind
    packed = name.endswith((".gz", ".zst"))
    # of a line or a frame a piece between two others joins the next one
    joined = {piece} if packed else {piece, piece + 1}
    if kind == "garbage":
        return before + chance.randbytes(chance.randrange(1, 60)).replace(b"\n", b"") + part + after, joined, kind
    if kind == "zeros":
        return before + bytes(chance.randrange(1, 700)) + part + after, set() if not packed else {piece}, kind
    if kind == "lost":
        size = chance.randrange(1, len(part))
        at = chance.randrange(len(part) - size + 1)
        return before + part[:at] + part[at + size :] + after, joined, kind
    changed = bytearray(part)
    for _ in range(chance.choice([1, 1, 2, 8])):
        at = chance.randrange(min(len(part), 12) if kind == "header" else len(part))
        changed[at] = chance.randrange(256)
    return before + bytes(changed) + after, joined, kind


def _damage_parquet(data: bytes, chance: random.Random) -> tuple[bytes, set[int], str]:
    """Damage to one row group's pages, to the footer, or to the file's end."""
    footer = pq.ParquetFile(io.BytesIO(data)).metadata
    spans = []
    for index in range(footer.num_row_groups):
        columns = [footer.row_group(index).column(place) for place in range(footer.num_columns)]
        starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
        ends = [start + column.total_compressed_size for start, column in zip(starts, columns, strict=True)]
        spans.append((min(starts), max(ends)))
    groups = set(range(len(spans)))
    kind = chance.choice(["pages", "pages", "pages", "metadata", "metadata", "cut", "tail"])
    changed = bytearray(data)
    if kind == "cut":
        return data[: chance.randrange(len(data))], groups, kind
    if kind == "tail":
        return data + chance.choice([b"\0" * 100, b"rest"]), groups, kind
    if kind == "metadata":
        for _ in range(chance.choice([1, 1, 2, 8])):
            changed[chance.randrange(spans[-1][1], len(data))] = chance.randrange(256)
        return bytes(changed), groups, kind
    hit = chance.randrange(len(spans))
    first, last = spans[hit]
    for _ in range(chance.choice([1, 4, 40])):
        changed[chance.randrange(first, last)] = chance.randrange(256)
    return bytes(changed), {hit}, kind
