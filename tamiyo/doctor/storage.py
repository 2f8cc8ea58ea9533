"""Check what is stored of exports: the ledger, retirements, noted digests, Delta tables, pins of builds."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lake.accounting import accounting
from lake.builds import pin_files, pinned, release
from lake.durable.file_digest import file_digest
from lake.durable.publish import lock
from lake.exports.digests import DIGESTS, read_noted, signature_of
from lake.exports.feeds import silent_feeds
from lake.exports.folders import Exports
from lake.exports.ledger import Ledger
from lake.ingest.ingest import INGEST_LOCK, Ingest
from lake.ingest.rebuilding import remove_table, with_rejects
from lake.ingest.replay_plan import finish
from lake.retirement import Retirements
from lake.settings import has_own_exports
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.contracts import TABLES
from schemas.errors import ContractError, StorageError
from tamiyo.doctor.finding import Finding


def examine_ledger(home: Path) -> Iterator[Finding]:
    """Report a damaged ledger; nothing can rebuild the order in which exports came."""
    try:
        Ledger(home).entries()
    except StorageError as error:
        yield Finding(str(Ledger(home).journal.path), str(error))


def examine_retirements(home: Path) -> Iterator[Finding]:
    """Report a damaged journal of retirements; nothing else knows which runs are retired."""
    try:
        Retirements(home).current()
    except StorageError as error:
        yield Finding(str(Retirements(home).journal.path), str(error))


def examine_feeds(home: Path, silent_after: timedelta) -> Iterator[Finding]:
    """Report upstream systems that sent nothing new for longer than `silent_after`; not in the sample's home."""
    try:
        entries = Ledger(home).entries() if has_own_exports(home) else []
    except StorageError:  # `examine_ledger` reports it
        return
    for feed in silent_feeds(entries, silent_after, datetime.now(UTC)):
        yield Finding(f"feed {feed.system}", feed.text)


def examine_digests(home: Path, *, repair: bool) -> Iterator[Finding]:
    """Report noted digests that differ from their files, although these seem unchanged; hashes every file."""
    path = home / DIGESTS
    if not path.exists():
        return
    try:
        root, noted = read_noted(home)
        wrong = [file for file, (signature, digest) in noted.items() if _differs(root / file, signature, digest)]
    except StorageError as error:
        problem: str | None = str(error)
    else:
        listed = ", ".join(wrong)
        problem = f"{path}: expected the digests of the exports as they are, found others of {listed}" if wrong else None
    if problem is None:
        return
    if repair:
        with lock(home / INGEST_LOCK):
            path.unlink(missing_ok=True)
    yield Finding(str(path), problem, "removed; the next run hashes every export" if repair else None)


def _differs(path: Path, signature: tuple[int, int, int, int], digest: str) -> bool:
    """Return whether a file with the noted signature has another digest; one that is gone or newer is hashed anyway."""
    try:
        return signature_of(path.stat()) == signature and file_digest(path) != digest
    except OSError:
        return False


def examine_tables(home: Path, tables: TableStore, exports: Exports | None, *, repair: bool) -> list[Finding]:
    """Return tables that can't be read, whose content is not what it was, or whose records do not add up."""
    if repair:
        # what a stopped replay left to do; a table that is too damaged for that is built again and no longer needs it
        with lock(home / INGEST_LOCK), suppress(StorageError):
            finish(home, tables)
    damaged = {name: problem for name in tables.names() if (problem := _damage(home, tables, name)) is not None}
    if not damaged or not repair:
        return [Finding(f"table {name}", problem) for name, problem in damaged.items()]
    with lock(home / INGEST_LOCK):
        together = with_rejects(tables, set(damaged))
        done = {name: remove_table(home, tables, name) for name in sorted(together)}
    rebuilt = _rebuild(home, tables, exports)
    return [Finding(f"table {name}", problem, f"{done[name]}; {rebuilt}") for name, problem in damaged.items()]


def _damage(home: Path, tables: TableStore, name: str) -> str | None:
    """Return what is wrong with a table, or None."""
    try:
        commit = tables.version(name)
        tables.read(name)
        changed = Versions(home, tables).changed(name)
    except (StorageError, ContractError, OSError) as error:
        return str(error)
    if commit is None:
        return f"table {name}: expected a commit, found none"
    if changed:
        return f"table {name}: expected the bytes of version {commit}, found others in {', '.join(changed)}"
    if name in TABLES:
        counts = accounting(tables, name)
        if not counts.balanced:
            return f"table {name}: expected rows read = kept + duplicates + rejects, found {counts}"
    return None


def _rebuild(home: Path, tables: TableStore, exports: Exports | None) -> str:
    if exports is None:
        return "the next run builds it again"
    Ingest(home, exports, tables).refresh()
    return "built again from the exports where it is a contract table, else by the next run"


def examine_pins(home: Path, tables: TableStore, *, repair: bool) -> Iterator[Finding]:
    """Report records of builds that can't be read, and pinned versions whose files are gone."""
    for path in pin_files(home):
        try:
            versions = pinned(path)
        except StorageError as damage:
            if repair:
                path.unlink()
            done = "removed; its build stays, its table versions are not kept any more" if repair else None
            yield Finding(str(path), str(damage), done)
            continue
        missing = {name: version for name, version in versions.items() if not _whole(tables, name, version)}
        if missing:
            if repair:
                release(home, tables, missing, path.stem)
            done = "these versions are not pinned any more" if repair else None
            yield Finding(str(path), f"{path}: expected the files of {missing}, found some of them gone", done)


def _whole(tables: TableStore, name: str, version: int) -> bool:
    """Return whether a version can still be read."""
    try:
        return tables.open(name, version) is not None and all(file.exists() for file in tables.files(name, version))
    except StorageError:
        return False
