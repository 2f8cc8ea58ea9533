"""Ingest a batch of exports: decode to disk, count independently, commit table by table, rejects first.

Import this only if there is something to read: the decoders and polars are slow to import.
"""

from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa

from lake.accounting import Counted, Tally, export_key, total
from lake.exports.folders import Export
from lake.exports.pending import Pending, mark_of, targets_of
from lake.ingest.audit import Audit
from lake.ingest.commit import Commit, commit_rejects, commit_rows
from lake.ingest.report import IngestReport
from lake.ingest.staging import Staging
from lake.store.failures import disk_full
from lake.store.table_store import HeldTables
from schemas.contracts import REJECT_SCHEMA, TABLES, Folder, Reason
from schemas.decode import Decoded, Limits, decode_file
from schemas.decode.dispatch import extension_of
from schemas.decode.read.isolate import Isolated
from schemas.decode.shape.collector import Collector, RawRecord
from schemas.decode.together import SMALL_BYTES, Source, decode_together
from schemas.errors import ContractError, StorageError

_COMMITS = 2  # tables that are written at once: writes mostly run outside Python


class _Changed(Exception):
    """An export changed after it was hashed."""

    def __init__(self, pending: Pending) -> None:
        super().__init__(pending.export.file)
        self.pending = pending


class _Failed(Exception):
    """Reading or decoding some exports raised an unexpected error."""

    def __init__(self, group: Sequence[Pending], attempt: Isolated) -> None:
        super().__init__(attempt.text)
        self.group = group
        self.error = attempt.error


@dataclass
class _Decoded:
    """Counts of one batch."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    unknown_fields: dict[str, int] = field(default_factory=dict)
    suspicious: dict[str, int] = field(default_factory=dict)
    counted: Counted = field(default_factory=Counted)

    def count(self, name: str, chunk: Decoded, *, again: bool) -> None:
        """Add a chunk's counts for one table. `again`: leave out its rejects, which the rejects table already holds."""
        read, rejected = chunk.rows_read.get(name, 0), chunk.rejected.get(name, 0)
        counted = Tally(rows_read=read - rejected) if again else Tally(rows_read=read, rejected=rejected)
        self.tallies[name] = self.tallies.get(name, Tally()).plus(counted)


def take_in(tables: HeldTables, folder: Folder, batch: Sequence[Pending], limits: Limits, report: IngestReport) -> None:
    """Decode a batch of exports to disk, then commit it table by table, the rejects first.

    An export that can't be read is left for the next refresh; one that makes the decoder fail as a whole becomes a reject.
    """
    remaining = list(batch)
    apart: dict[str, str | None] = {}  # exports that are decoded alone, with the error of those that still fail
    while remaining:
        with Staging(tables.home, {name: _stored(name) for name in targets_of(folder)}) as staging:
            decoded = _Decoded()
            try:
                for group in _groups(folder, remaining, apart):
                    error = apart.get(group[0].export.identity)
                    _decode(folder, group, staging, decoded, limits, error)
            except _Changed as changed:
                # its new bytes are another export, which the next refresh finds
                report.vanished.append(changed.pending.export.file)
                remaining.remove(changed.pending)
                continue
            except _Failed as failed:
                _set_apart(failed, remaining, apart, report)
                continue
            _commit(tables, folder, remaining, staging, decoded, report)
            report.exports[folder.path] = report.exports.get(folder.path, 0) + len(remaining)
            drift = {f"{folder.path} {name}": count for name, count in decoded.unknown_fields.items()}
            report.unknown_fields = total([report.unknown_fields, drift])
            report.suspicious = total([report.suspicious, decoded.suspicious])
            return


def _commit(
    tables: HeldTables,
    folder: Folder,
    batch: Sequence[Pending],
    staging: Staging,
    decoded: _Decoded,
    report: IngestReport,
) -> None:
    """Commit staged rows to every table that lacks one of the exports: the rejects first, then the tables, two at a time."""
    orders = []
    for name in targets_of(folder):
        keys = {export_key(folder, p.export.identity): p.entry.scan for p in batch if name in p.tables}
        if keys:
            mark = {mark_of(folder): max(p.entry.seq for p in batch)}
            counted = (folder, decoded.counted) if name == folder.reject_table else None
            orders.append(Commit(name, keys | mark, decoded.tallies.get(name, Tally()), counted))
    for order in orders:
        tables.renew(order.name)
        if order.name not in TABLES:
            report.versions[order.name] = commit_rejects(tables, staging, order)
    of_rows = [order for order in orders if order.name in TABLES]
    with ThreadPoolExecutor(_COMMITS, "commit") as threads:
        for order, (version, runs) in zip(of_rows, threads.map(partial(commit_rows, tables, staging), of_rows), strict=True):
            report.runs.setdefault(order.name, set()).update(runs)
            report.versions[order.name] = version


def _set_apart(failed: _Failed, remaining: list[Pending], apart: dict[str, str | None], report: IngestReport) -> None:
    """Retry several failed exports one by one; of a single one, leave an unreadable file to wait, else make it a reject."""
    if len(failed.group) > 1:
        apart |= dict.fromkeys((pending.export.identity for pending in failed.group), None)
        return
    (pending,) = failed.group
    if isinstance(failed.error, OSError) or apart.get(pending.export.identity) is not None:
        report.failed[pending.export.file] = str(failed)
        remaining.remove(pending)
    else:
        apart[pending.export.identity] = str(failed)


def _decode(
    folder: Folder, group: Sequence[Pending], staging: Staging, decoded: _Decoded, limits: Limits, error: str | None
) -> None:
    """Stage the rows and rejects of exports for the tables that lack them, and count their records.

    `error`: why a single export can't be decoded; None to decode. Raises _Changed if a file has changed, _Failed for other
    errors.
    """
    exports = [pending.export for pending in group]
    audit = Audit(folder, limits, exports)
    with Isolated(StorageError) as attempt:
        for chunk in _chunks(folder, exports, limits) if error is None else [_undecodable(folder, exports[0], error)]:
            _stage(folder, group[0], chunk, staging, decoded)
            audit.note(chunk)
        staging.settle()
        if folder.reject_table in group[0].tables and error is None:
            for export in exports:
                decoded.counted = decoded.counted.plus(audit.judge(export, extension_of(export.file, folder)))
    _raise_changed(group)
    if attempt.error is not None:
        full = disk_full(attempt.error, staging.home)
        if full is not None:
            raise full from attempt.error
        raise _Failed(group, attempt) from attempt.error


def _stage(folder: Folder, one: Pending, chunk: Decoded, staging: Staging, decoded: _Decoded) -> None:
    """Stage a chunk of exports like `one` for the tables that lack them."""
    targets = frozenset(targets_of(folder))
    for name, rows in (*chunk.tables.items(), *chunk.rejects.items()):
        if name not in targets:
            raise ContractError(f"{folder.path}: expected rows of {', '.join(sorted(targets))}, found some of {name}")
        if name in one.tables:
            staging.add(name, _arrived(rows, one.entry.scan))
    for name in one.tables:
        decoded.count(name, chunk, again=name in one.again)
    decoded.unknown_fields = total([decoded.unknown_fields, chunk.unknown_fields])
    decoded.suspicious = total([decoded.suspicious, chunk.suspicious])


def _undecodable(folder: Folder, export: Export, error: str) -> Decoded:
    """Return an export that makes the decoder fail as one reject."""
    collector = Collector(folder, export.file, export.digest)
    message = f"{export.file}: expected a file that can be decoded, found one at which the decoder failed: {error}"
    collector.reject_record(RawRecord(0, b""), Reason.UNREADABLE_FILE, message)
    return collector.finish()


def _chunks(folder: Folder, exports: Sequence[Export], limits: Limits) -> Iterable[Decoded]:
    """Yield decoded chunks of one export, or of many small ones."""
    if len(exports) == 1:
        return decode_file(exports[0].path, folder, file=exports[0].file, digest=exports[0].digest, limits=limits)
    return decode_together([Source(export.path, export.file, export.digest) for export in exports], folder, limits)


def _raise_changed(group: Sequence[Pending]) -> None:
    for pending in group:
        if not pending.export.unchanged():
            raise _Changed(pending) from None


def _groups(folder: Folder, batch: Sequence[Pending], apart: Collection[str]) -> Iterable[list[Pending]]:
    """Cut a batch into groups to decode at once: large exports and those of `apart` alone, small ones together."""
    small: dict[tuple[object, ...], list[Pending]] = {}
    for pending in batch:
        if pending.export.size > SMALL_BYTES or pending.export.identity in apart:
            yield [pending]
        else:
            extension = extension_of(pending.export.file, folder)
            small.setdefault((pending.tables, pending.again, pending.entry.scan, extension), []).append(pending)
    yield from small.values()


def _arrived(rows: pa.Table, arrival: int) -> pa.Table:
    """Return `rows` with their arrival number, if the table is ordered by it."""
    place = rows.schema.get_field_index("arrival")
    if place < 0:
        return rows
    return rows.set_column(place, rows.schema.field(place), pa.repeat(pa.scalar(arrival, pa.int64()), rows.num_rows))


def _stored(name: str) -> pa.Schema:
    return TABLES[name].arrow_schema if name in TABLES else REJECT_SCHEMA
