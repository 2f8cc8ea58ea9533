"""Asset checks: what must hold of the tables. Only `preflight` blocks: no fault of one table stops the others."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow.compute as pc
from dagster import ResourceParam

from gnn.coverage.ratios import ratios
from lake.accounting import Accounting
from lake.builds import last_trained
from lake.ingest.ingest import Ingest
from lake.retirement import retired_runs
from lake.rules import judge, references
from lake.settings import Settings
from lake.store.table_store import TableStore
from schemas.contracts import TABLES, Severity
from schemas.errors import BundleRejected, FeatureError
from schemas.features import COVERAGE_KEYS
from tamiyo_assets.assets.graphs import DATASET
from tamiyo_assets.assets.model import BUNDLE
from tamiyo_assets.assets.reports import AFTER_COVERAGE, key_of, table_of
from tamiyo_assets.assets.upstream import EXPORTS, RETIRED

CONTRACT_RULES = "contract_rules"
CONSERVATION = "conservation"
BY_KEY = key_of("coverage.by_key")
BY_FAMILY = key_of("coverage.by_family")
GAPS = key_of("coverage.gaps")

_LISTED = 50


@dg.multi_asset_check(
    name=CONTRACT_RULES,
    specs=[
        dg.AssetCheckSpec(
            CONTRACT_RULES,
            asset=key_of(name),
            additional_deps=[RETIRED],
            description=f"Kept rows of {name} keep its rules; rejects are a WARN.",
        )
        for name in TABLES
    ],
    op_tags=AFTER_COVERAGE,
    can_subset=True,
)
def contract_rules(
    context: dg.AssetCheckExecutionContext, ingest: ResourceParam[Ingest], tables: ResourceParam[TableStore]
) -> Iterator[dg.AssetCheckResult]:
    """Kept rows of runs that are not retired against the declaration (ERROR), broken WARN rules and rejected records (WARN)."""
    checked = {check: TABLES[table_of(check.asset_key)] for check in sorted(context.selected_asset_check_keys)}
    known = {(name, column): _ids(tables, name, column) for name, column in references(checked.values())}
    retired = retired_runs(tables)
    for check, table in checked.items():
        broken = judge(tables, table, known, retired)
        rejected = ingest.accounting(table.name).rejected
        errors = [rule for rule in broken if rule.severity is Severity.ERROR]
        yield dg.AssetCheckResult(
            asset_key=check.asset_key,
            check_name=CONTRACT_RULES,
            passed=not broken and not rejected,
            severity=dg.AssetCheckSeverity.ERROR if errors else dg.AssetCheckSeverity.WARN,
            description="; ".join(
                [*(rule.text for rule in broken), *([f"{rejected} records rejected, see `tamiyo rejects`"] if rejected else [])]
            ),
            metadata={"broken_rules": len(broken), "rejected": rejected, **{rule.rule: [*rule.examples] for rule in broken}},
        )


def _ids(tables: TableStore, name: str, column: str) -> frozenset[str]:
    """The ids in a column of a table."""
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
    """Nothing that was read is lost: each record is a kept row, a duplicate or a reject."""
    for check in sorted(context.selected_asset_check_keys):
        name = table_of(check.asset_key)
        counts = ingest.accounting(name)
        yield dg.AssetCheckResult(
            asset_key=check.asset_key,
            check_name=CONSERVATION,
            passed=counts.balanced,
            severity=dg.AssetCheckSeverity.ERROR,
            description="every record is accounted for" if counts.balanced else _unbalanced(name, counts),
            metadata={"records_in_exports": counts.records, "records_lost": counts.lost},  # the table reports the other numbers
        )


def _unbalanced(name: str, counts: Accounting) -> str:
    return (
        f"{name}: {counts.rows_read} read, {counts.kept} kept + {counts.duplicates} duplicates + {counts.rejected} rejects "
        f"({counts.said_rejected} when they were read); {counts.records} counted in the exports, {counts.lost} of them neither "
        "in rows nor in rejects"
    )


@dg.asset_check(asset=BY_KEY, name="mandatory_coverage", description="Every mandatory key is measured everywhere.")
def mandatory_coverage(settings: ResourceParam[Settings], tables: ResourceParam[TableStore]) -> dg.AssetCheckResult:
    """ERROR where a mandatory key is under the threshold over all runs; a key without elements has no ratio."""
    rows = tables.read("coverage.by_key")
    mandatory = rows.filter(pc.field("mandatory"))
    low = [r for r in ratios(mandatory, ["key", "system"]) if r["ratio"] < settings.mandatory_coverage]
    return dg.AssetCheckResult(
        passed=not low,
        severity=dg.AssetCheckSeverity.ERROR,
        description=_shortfall(low, "key", settings.mandatory_coverage),
        metadata={"keys_under": len(low), "keys": [f"{r['key']} {r['ratio']:.3f} ({r['system']})" for r in low][:_LISTED]},
    )


@dg.asset_check(
    asset=GAPS, name="graphs_have_elements", description="Every run with states has layers, activations, parameters."
)
def graphs_have_elements(tables: ResourceParam[TableStore]) -> dg.AssetCheckResult:
    """ERROR where a run's graphs have no layer, no activation or no parameter; a run without seeds is none."""
    rows = tables.read("coverage.gaps").filter(pc.starts_with(pc.field("reason"), "no elements"))
    empty = {(row["training_run_id"], row["key"].partition(".")[0], row["system"]) for row in rows.to_pylist()}
    missing = sorted(found for found in empty if found[1] in ("layer", "activation", "parameter"))
    listed = [f"{run} has no {node_type} ({system} did not send any)" for run, node_type, system in missing]
    return dg.AssetCheckResult(
        passed=not missing,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(listed[:5]) or "every run has layers, activations and parameters",
        metadata={"runs": len({run for run, *_ in missing}), "missing": listed[:_LISTED]},
    )


@dg.asset_check(asset=BY_FAMILY, name="family_coverage", description="No family of features is mostly missing.")
def family_coverage(settings: ResourceParam[Settings], tables: ResourceParam[TableStore]) -> dg.AssetCheckResult:
    """WARN where a family is under the threshold over all runs."""
    low = [r for r in ratios(tables.read("coverage.by_family"), ["family"]) if r["ratio"] < settings.family_coverage]
    return dg.AssetCheckResult(
        passed=not low,
        severity=dg.AssetCheckSeverity.WARN,
        description=_shortfall(low, "family", settings.family_coverage),
        metadata={"families_under": len(low), "families": [f"{r['family']} {r['ratio']:.3f}" for r in low]},
    )


@dg.asset_check(asset=BY_KEY, name="coverage_conservation", description="Measured and missing add up to elements, key by key.")
def coverage_conservation(tables: ResourceParam[TableStore]) -> dg.AssetCheckResult:
    """Every run with states is counted, if it is not retired; measured and missing (`coverage.gaps`) are all elements."""
    from gnn.coverage.counts import unbalanced

    rows = tables.read("coverage.by_key")
    states = tables.read("tolaria.system_state", columns=["training_run_id", "is_completion"])
    graphs = states.filter(pc.invert(pc.fill_null(states.column("is_completion"), False)))
    expected = set(graphs.column("training_run_id").unique().to_pylist()) - retired_runs(tables)
    uncounted = sorted(expected - set(rows.column("training_run_id").unique().to_pylist()))
    wrong = [f"{run}: has training states and no coverage" for run in uncounted]
    wrong += unbalanced(rows, tables.read("coverage.gaps"))
    return dg.AssetCheckResult(
        passed=not wrong,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(wrong[:_LISTED]) if wrong else "every key adds up",
        metadata={"rows": rows.num_rows, "wrong": len(wrong)},
    )


@dg.asset_check(
    asset=DATASET,
    name="masks_agree",
    additional_deps=[BY_KEY],
    description="The tensors' masks say what coverage counted.",
)
def masks_agree(settings: ResourceParam[Settings], tables: ResourceParam[TableStore]) -> dg.AssetCheckResult:
    """For every key, the mask channels and ids of all graphs add up to the measured elements of `coverage.by_key`."""
    from gnn.coverage.counts import check_conservation
    from gnn.graph.dataset import GraphDataset

    shards = GraphDataset.open(settings.home).shards
    sums = [sum(column) for column in zip(*(shard.measured().tolist() for shard in shards), strict=True)]
    try:
        check_conservation(dict(zip(COVERAGE_KEYS, sums, strict=True)) if shards else {}, tables.read("coverage.by_key"))
    except FeatureError as error:
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.ERROR, description=str(error))
    return dg.AssetCheckResult(passed=True, severity=dg.AssetCheckSeverity.ERROR, description="every key agrees")


@dg.asset_check(asset=BUNDLE, name="preflight", blocking=True, description="The bundle is sound and fits the running code.")
def preflight_check(settings: ResourceParam[Settings], turn: ResourceParam[None]) -> dg.AssetCheckResult:
    """Every mismatch at once: bytes, layout, registries, golden outputs."""
    from gnn.bundle import bundle_path, preflight

    report = preflight(bundle_path(settings.home, _trained(settings)))
    return dg.AssetCheckResult(
        passed=report.clean,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(str(mismatch) for mismatch in report.mismatches) or "clean",
        metadata={"mismatches": len(report.mismatches)},
    )


@dg.asset_check(asset=BUNDLE, name="quality_gates", description="Figures on held-out hosts are good enough to serve.")
def quality_gates(settings: ResourceParam[Settings], turn: ResourceParam[None]) -> dg.AssetCheckResult:
    """WARN with every gate that keeps the bundle from being promoted."""
    from gnn.bundle.report import build_report

    report = build_report(settings.home, _trained(settings), settings.gates)
    return dg.AssetCheckResult(
        passed=not report.reasons,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(report.reasons) or "all gates pass",
        metadata={gate.name: gate.detail for gate in report.gates} | dict(report.figures),
    )


def _trained(settings: Settings) -> str:
    build_id = last_trained(settings.home)
    if build_id is None:
        raise BundleRejected(f"home {settings.home}: expected a bundle, found none; materialize bundle/tamiyo_gnn_v1 first")
    return build_id


def _shortfall(low: list[dict[str, Any]], name: str, threshold: float) -> str:
    if not low:
        return f"every {name} is at least {threshold:.2f}"
    worst = ", ".join(f"{r[name]} {r['ratio']:.3f}" for r in low[:5])
    return f"{len(low)} under {threshold:.2f}, worst: {worst}"


@dg.asset_check(asset=EXPORTS, name="files_read", description="Every file under the exports root is one that a contract reads.")
def files_read(ingest: ResourceParam[Ingest]) -> dg.AssetCheckResult:
    """WARN with the files that are not read: unknown endings, folders of no contract, links to nothing, pipes."""
    unread = ingest.exports.unread()
    listed = [f"{file.file}: {file.reason}" for file in unread]
    return dg.AssetCheckResult(
        passed=not unread,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(unread)} not read: {'; '.join(listed[:5])}" if unread else "every file is read",
        metadata={"files": len(unread), "unread": listed[:_LISTED]},
    )


CHECKS = (
    files_read,
    contract_rules,
    conservation,
    mandatory_coverage,
    family_coverage,
    graphs_have_elements,
    coverage_conservation,
    masks_agree,
    preflight_check,
    quality_gates,
)
