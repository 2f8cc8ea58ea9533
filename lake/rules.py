"""Check kept rows against their table's declaration: find broken rules, the number of rows that break them, and examples."""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from lake.durable.publish import publish_file
from lake.retirement import without
from lake.store.table_store import TableStore
from schemas.contracts.table import Rule, Severity, Table

if TYPE_CHECKING:
    import polars as pl

_LISTED: Final = 50  # ids of broken rows that are named
_SHOWN: Final = 3
_ROUNDING: Final = 1e-6  # tolerance of float32 scores at their bounds

References = Mapping[tuple[str, str], Collection[str]]  # ids that exist, by (table, column)


@dataclass(frozen=True)
class BrokenRule:
    """One rule that some kept rows break. `examples`: their ids or values, the first 50."""

    rule: str
    severity: Severity
    cases: int
    examples: tuple[str, ...]

    @property
    def text(self) -> str:
        """One line for people."""
        return f"{self.rule}: {self.cases} rows, e.g. {', '.join(self.examples[:_SHOWN])}"


def references(tables: Iterable[Table]) -> frozenset[tuple[str, str]]:
    """Return (table, column) of all ids that rules of `tables` compare with."""
    return frozenset(rule.refers for table in tables for rule in table.rules if rule.refers is not None)


def judge(tables: TableStore, table: Table, known: References, retired: Collection[str] = frozenset()) -> list[BrokenRule]:
    """Return the rules that stored rows of a contract table break, ERROR before WARN; ignore rows of `retired` runs.

    The findings of each file are stored beside the table under the file's name, which is never reused, so that a rebuild reads
    only new files. Files with references to missing ids are judged again after new ids appear, files with rows of a run after
    it is retired or restored, and all files after ids disappear or the declaration changes.
    """
    path = tables.home / "digests" / f"{table.name}.rules.json"
    declaration = hashlib.sha256(repr((table.rules, table.declared)).encode()).hexdigest()
    ids = {f"{name}.{column}": sorted(known.get((name, column), ())) for name, column in sorted(references([table]))}
    noted = _noted(path, declaration)
    before, files = noted.get("ids", {}), noted.get("files", {})
    left_out = sorted(retired) if table.scope is not None else []
    moved = _files_of(tables, table, {*left_out} ^ {*noted.get("retired", ())})
    lost = any(not set(before.get(name, ())) <= set(values) for name, values in ids.items())
    found = {}
    for file in tables.files(table.name):
        name = str(file.relative_to(tables.path(table.name)))
        entry = files.get(name)
        if entry is None or lost or name in moved or (before != ids and any(rule[0] in _referring(table) for rule in entry)):
            broken = broken_rules(table, without(tables.read(table.name, files=[file]), left_out), known)
            entry = [[rule.rule, rule.severity.value, rule.cases, list(rule.examples)] for rule in broken]
        found[name] = entry
    now = {"ids": ids, "files": found, "retired": left_out}
    if {name: noted.get(name, []) for name in now} != now:
        publish_file(path, json.dumps({"declaration": declaration, **now}).encode())
    return _added_up(found.values())


def _files_of(tables: TableStore, table: Table, runs: set[str]) -> set[str]:
    """Return the files of a table that hold rows of some runs."""
    held = tables.runs_by_file(table.name) if runs else {}
    return {file for file, names in held.items() if not runs.isdisjoint(names)}


def _noted(path: Path, declaration: str) -> dict[str, Any]:
    """Return the stored findings of a table's files; {} if they are absent, damaged, or of another declaration."""
    try:
        noted = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return noted if isinstance(noted, dict) and noted.get("declaration") == declaration else {}


def _referring(table: Table) -> set[str]:
    return {f"{table.name} {rule.name}" for rule in table.rules if rule.refers is not None}


def _added_up(files: Iterable[list[Any]]) -> list[BrokenRule]:
    """Merge the broken rules of several files: add up the cases, keep the first examples."""
    whole: dict[tuple[str, str], tuple[int, list[str]]] = {}
    for entry in files:
        for rule, severity, cases, examples in entry:
            count, named = whole.get((rule, severity), (0, []))
            whole[rule, severity] = (count + cases, list(dict.fromkeys([*named, *examples]))[:_LISTED])
    found = [BrokenRule(rule, Severity(severity), cases, tuple(named)) for (rule, severity), (cases, named) in whole.items()]
    return sorted(found, key=lambda rule: rule.severity is not Severity.ERROR)


def broken_rules(table: Table, rows: pa.Table, known: References | None = None) -> list[BrokenRule]:
    """Return every broken rule, ERROR before WARN; [] if none is. `known`: the ids that exist, for all `references`."""
    if not rows.num_rows:
        return []
    return [*_errors(table, rows), *_warnings(table, rows, known or {})]


def _errors(table: Table, rows: pa.Table) -> Iterator[BrokenRule]:
    """Yield broken ERROR rules (types, nullability, ranges, the key), by the table's pandera schema."""
    from schemas.row_rules import breaches, wrong_columns

    wrong = wrong_columns(table.declared, rows.schema)
    if wrong is not None:
        yield BrokenRule(f"{table.name} columns", Severity.ERROR, rows.num_rows, (wrong,))
        return
    for breach in breaches(table.declared, rows):
        yield BrokenRule(f"{table.name} {breach.rule.name}", Severity.ERROR, breach.rows, breach.examples)


def _warnings(table: Table, rows: pa.Table, known: References) -> Iterator[BrokenRule]:
    import polars as pl

    from schemas.row_rules import polars_frame

    frame = polars_frame(rows)

    for rule in table.rules:
        broken = _condition(table, rule, known) if rule.severity is Severity.WARN else None
        if broken is None:
            continue
        cases = frame.filter(broken)
        if len(cases):
            named = cases[table.key[0] if rule.bands else rule.columns[0]].cast(pl.String).unique(maintain_order=True)
            yield BrokenRule(f"{table.name} {rule.name}", Severity.WARN, len(cases), tuple(map(str, named.head(_LISTED))))


def _condition(table: Table, rule: Rule, known: References) -> "pl.Expr | None":
    """Return the expression that is true for rows that break a WARN rule; None if the rule does not apply here."""
    import polars as pl

    column = pl.col(rule.columns[0])
    if rule.bands:
        score = pl.col(rule.columns[1])
        inside = [(column == band) & score.is_between(low - _ROUNDING, high + _ROUNDING) for band, low, high in rule.bands]
        return column.is_in([band for band, *_ in rule.bands]) & score.is_not_null() & ~pl.any_horizontal(inside)
    if rule.refers is not None:
        return column.is_not_null() & ~column.is_in(list(known.get(rule.refers, ())))
    enum = table.column[rule.columns[0]].enum_spec
    return column.is_not_null() & ~column.is_in(list(enum.short_names.values())) if enum else None
