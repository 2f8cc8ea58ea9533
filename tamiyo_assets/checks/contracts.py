"""Check what was sent: files that nothing reads, rules of the contracts, conservation of records."""

from collections.abc import Iterator
from typing import Final

import dagster as dg
from dagster import ResourceParam

from lake.accounting import Accounting
from lake.ingest.ingest import Ingest
from lake.retirement import retired_runs
from lake.rules import judge, references
from lake.store.table_store import TableStore
from schemas.contracts import TABLES, Severity
from tamiyo_assets.assets.problems import Problem, check_result
from tamiyo_assets.assets.reports import AFTER_COVERAGE, key_of, table_of
from tamiyo_assets.assets.upstream import EXPORTS, RETIRED

CONTRACT_RULES: Final = "contract_rules"
CONSERVATION: Final = "conservation"


@dg.asset_check(asset=EXPORTS, name="files_read", description="Every file under the exports root is one that a contract reads.")
def files_read(ingest: ResourceParam[Ingest]) -> dg.AssetCheckResult:
    """WARN with the files that are not read: unknown endings, folders of no contract, links to nothing, pipes."""
    unread = ingest.exports.unread()
    return check_result(
        [Problem(file.file, f"{file.file}: {file.reason}") for file in unread],
        "every file is read",
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"files": len(unread)},
    )


@dg.multi_asset_check(
    name=CONTRACT_RULES,
    specs=[
        dg.AssetCheckSpec(
            CONTRACT_RULES,
            asset=key_of(name),
            additional_deps=[RETIRED],
            description="Kept rows keep its rules; no record is rejected.",
        )
        for name in TABLES
    ],
    op_tags=AFTER_COVERAGE,
    can_subset=True,
)
def contract_rules(
    context: dg.AssetCheckExecutionContext, ingest: ResourceParam[Ingest], tables: ResourceParam[TableStore]
) -> Iterator[dg.AssetCheckResult]:
    """Check the kept rows of runs that are not retired against their declaration.

    Broken ERROR rules fail with ERROR, broken WARN rules and rejected records with WARN.
    """
    checked = {check: TABLES[table_of(check.asset_key)] for check in sorted(context.selected_asset_check_keys)}
    known = {(name, column): _ids(tables, name, column) for name, column in references(checked.values())}
    retired = retired_runs(tables)
    for check, table in checked.items():
        broken = judge(tables, table, known, retired)
        rejected = ingest.accounting(table.name).rejected
        problems = [Problem(rule.rule, rule.text, (table.system,)) for rule in broken]
        if rejected:
            said = f"{rejected} records rejected, see `tamiyo rejects`"
            problems.append(Problem("rejected records", said, (table.system,)))
        errors = any(rule.severity is Severity.ERROR for rule in broken)
        yield check_result(
            problems,
            "every rule is kept",
            severity=dg.AssetCheckSeverity.ERROR if errors else dg.AssetCheckSeverity.WARN,
            check=check,
            metadata={rule.rule: [*rule.examples] for rule in broken},
        )


def _ids(tables: TableStore, name: str, column: str) -> frozenset[str]:
    """Return the ids in a column of a table."""
    return frozenset(tables.read(name, columns=[column]).column(0).unique().drop_null().to_pylist())


@dg.multi_asset_check(
    name=CONSERVATION,
    specs=[
        dg.AssetCheckSpec(CONSERVATION, asset=key_of(name), description="rows read = rows kept + duplicates + rejects")
        for name in TABLES
    ],
    op_tags=AFTER_COVERAGE,
    can_subset=True,
)
def conservation(context: dg.AssetCheckExecutionContext, ingest: ResourceParam[Ingest]) -> Iterator[dg.AssetCheckResult]:
    """Check that nothing that was read is lost: each record is a kept row, a duplicate or a reject."""
    for check in sorted(context.selected_asset_check_keys):
        name = table_of(check.asset_key)
        counts = ingest.accounting(name)
        lost = [] if counts.balanced else [Problem("records unaccounted for", _unbalanced(name, counts))]
        yield check_result(
            lost,
            "balanced",
            check=check,
            # the table reports the other numbers
            metadata={"records_in_exports": counts.records, "records_lost": counts.lost},
        )


def _unbalanced(name: str, counts: Accounting) -> str:
    return (
        f"{name}: {counts.rows_read} read, {counts.kept} kept + {counts.duplicates} duplicates + {counts.rejected} rejects "
        f"({counts.said_rejected} when they were read); {counts.records} counted in the exports, {counts.lost} of them neither "
        "in rows nor in rejects"
    )


CONTRACT_CHECKS: Final = (files_read, contract_rules, conservation)
