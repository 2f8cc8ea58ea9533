"""Declare why records are rejected: reason codes, and the schema of every rejects table."""

from enum import StrEnum
from typing import Final

import pyarrow as pa

from schemas.table_declaration import DeclaredColumn, DeclaredTable


class Reason(StrEnum):
    """Reason code of a rejected record. The message beside it names the field, what was expected and what was found."""

    MISSING_RUN_ID = "missing_training_run_id"
    MISSING_ID = "missing_id"
    MISSING_TIME = "missing_time"
    OUT_OF_RANGE = "out_of_range"
    INTEGER_TOO_LARGE = "integer_too_large"
    TIME_OUT_OF_RANGE = "time_out_of_range"
    BAD_VALUE = "bad_value"
    UNKNOWN_ENUM_NAME = "unknown_enum_name"
    BAD_INDEX = "bad_index"
    DUPLICATE_KEY = "duplicate_key"
    INVALID_JSON = "invalid_json"
    INVALID_PROTOBUF = "invalid_protobuf"
    TORN_RECORD = "torn_record"
    BAD_FRAMING = "bad_framing"
    UNREADABLE_FILE = "unreadable_file"
    LIMIT_EXCEEDED = "limit_exceeded"
    WRONG_COLUMNS = "wrong_columns"
    UNROUTED_MESSAGE_TYPE = "unrouted_message_type"


REASONS: Final[dict[Reason, str]] = {
    Reason.MISSING_RUN_ID: "The key needs a training_run_id and the record has none.",
    Reason.MISSING_ID: "The key needs an id and the record has none.",
    Reason.MISSING_TIME: "The key needs an event time and the record has none.",
    Reason.OUT_OF_RANGE: "A value lies outside the range that its contract states.",
    Reason.INTEGER_TOO_LARGE: "An unsigned 64-bit integer does not fit a signed one.",
    Reason.TIME_OUT_OF_RANGE: "A time is before 1970 or does not fit signed 64-bit nanoseconds.",
    Reason.BAD_VALUE: "A value is not of its field's type, or a float that can't hold a whole number exactly.",
    Reason.UNKNOWN_ENUM_NAME: "An enum is given by a name that this version does not know (an unknown number is kept).",
    Reason.BAD_INDEX: "An index points at no element of the same record.",
    Reason.DUPLICATE_KEY: "One JSON object holds the same key twice, or in both of its spellings.",
    Reason.INVALID_JSON: "The line is not one JSON object.",
    Reason.INVALID_PROTOBUF: "The bytes are not a message of this contract.",
    Reason.TORN_RECORD: "The file ends inside this record.",
    Reason.BAD_FRAMING: "A length prefix is no valid one; the rest of the file can't be split into records.",
    Reason.UNREADABLE_FILE: "The file, or a part of it, can't be read: damaged compression, Parquet or JSON.",
    Reason.LIMIT_EXCEEDED: "A configured limit is exceeded.",
    Reason.WRONG_COLUMNS: "A Parquet file has no table of this folder, a column of another type, or a column twice.",
    Reason.UNROUTED_MESSAGE_TYPE: "A bus envelope carries a message type that has no contract table.",
}

REJECT_COLUMNS: Final = (
    DeclaredColumn("export_digest", pa.string(), "SHA-256 (hex) of the export that the record was read from."),
    DeclaredColumn("file", pa.string(), "Path of the export in the exports root."),
    DeclaredColumn("position", pa.int64(), "Byte offset, line or row of the record in its export.", low=0),
    DeclaredColumn("reason", pa.string(), "Reason code.", values=tuple(reason.value for reason in Reason)),
    DeclaredColumn("message", pa.string(), "The field, what was expected and what was found."),
    DeclaredColumn("raw", pa.binary(), "Bytes of the record.", nullable=True),
    DeclaredColumn("records", pa.int64(), "Records that the row stands for; NULL: one.", nullable=True, low=0),
)
REJECT_SCHEMA: Final[pa.Schema] = pa.schema([(column.name, column.type) for column in REJECT_COLUMNS])


def declared_rejects(name: str) -> DeclaredTable:
    """Return the declaration of the rejects table `name`; one record may be rejected for several reasons."""
    return DeclaredTable(name, REJECT_COLUMNS, shown=("file", "position"))
