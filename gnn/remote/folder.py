"""Read folders that another machine wrote: plain files alone, with the sizes and digests that were told, and no links."""

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from gnn.graph.files import FileRecord
from schemas.errors import TrainingError


def plain_files(directory: Path) -> list[str]:
    """Return the paths of all files below `directory`, relative to it. Raises TrainingError if one is a link or special."""
    found: list[str] = []
    odd = []
    for folder, names, files in os.walk(directory):
        for name in (*names, *files):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                found.append(path.relative_to(directory).as_posix())
            elif not stat.S_ISDIR(mode):
                odd.append(path.relative_to(directory).as_posix())
    if odd:
        raise TrainingError(f"{directory}: expected plain files, found links or special files: {sorted(map(ascii, odd))[:20]}")
    return sorted(found)


def faults_of(directory: Path, listed: Mapping[str, FileRecord], apart: str) -> list[str]:
    """Return what differs between the files in `directory`, without the file `apart`, and those listed; reads every byte."""
    names = set(plain_files(directory)) - {apart}
    faults = [f"{name}: listed, found no such file" for name in sorted(listed.keys() - names)]
    faults += [f"{name!a}: not listed, found this extra file" for name in sorted(names - listed.keys())]
    for name in sorted(names & listed.keys()):
        record, found = listed[name], (directory / name).stat().st_size
        if found != record.size:
            faults.append(f"{name}: expected {record.size} bytes, found {found}")
        elif (digest := digest_of_file(directory / name)) != record.sha256:
            faults.append(f"{name}: expected SHA-256 {record.sha256}, found {digest}")
    return faults


def read_plain(directory: Path, name: str, most: int) -> bytes:
    """Return the bytes of the plain file `name` in `directory`. Raises TrainingError if it is a link, or above `most` bytes."""
    with _opened(directory, name) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise TrainingError(f"{directory / name}: expected at most {most} bytes, found {size}")
        return file.read(most)


def _opened(directory: Path, name: str) -> BinaryIO:
    path = directory / name
    try:
        # O_NONBLOCK: opening a fifo must not wait for its writer
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise TrainingError(f"{path}: expected a plain file, found {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise TrainingError(f"{path}: expected a plain file, found another kind")
    return os.fdopen(descriptor, "rb")


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_of(data: bytes) -> FileRecord:
    """Return the size and digest of a file's bytes."""
    return FileRecord(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def table_bytes(table: pa.Table) -> bytes:
    """Return a table as an Arrow file of one batch."""
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(buffer.getvalue())


def table_of(data: bytes, shown: str) -> pa.Table:
    """Return the table in the bytes of an Arrow file; its values are checked. Raises TrainingError, which names it `shown`."""
    try:
        with pa.ipc.open_file(pa.py_buffer(data)) as reader:
            table = reader.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise TrainingError(f"{shown}: expected an Arrow file, found {error}") from None
    return table


def records_of(files: Mapping[str, bytes]) -> dict[str, FileRecord]:
    """Return the size and digest of each file, by name."""
    return {name: record_of(data) for name, data in sorted(files.items())}
