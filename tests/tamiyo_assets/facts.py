"""Facts of a bad day, made by hand."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tamiyo_assets.panel.facts import (
    OPERATOR,
    Build,
    CheckState,
    Feed,
    Gap,
    GateResult,
    Interval,
    KeyCoverage,
    Norm,
    OpenAlert,
    PanelData,
    Rebuild,
    RegistrySize,
    Rejected,
    Run,
    Serving,
)

NOW = datetime(2026, 11, 27, 3, 0, tzinfo=UTC)
BUILD = "ab" * 32
_HOUR = timedelta(hours=1)


def bad_facts(*, run: str = "run-1", reason: str = "missing_training_run_id", serving: bool = False) -> PanelData:
    """A mandatory key is missing in two runs, one of them `run`; records are refused for `reason`."""
    since, gate = NOW - 5 * _HOUR, GateResult("choice", False, "gap closed -0.478, at least 0.2")
    served = Serving(build_id=BUILD, since=NOW - timedelta(days=2), promoted_by="ada", newest=BUILD)
    refused = Serving(newest=BUILD, newest_at=since, gates=(gate,), reasons=(f"gate {gate.name}: {gate.detail}",))
    failed = CheckState("coverage/by_key", "mandatory_coverage", False, "ERROR", "1 under 1.00", NOW, since)
    passed = CheckState("coverage/by_key", "coverage_conservation", True, "ERROR", "every key adds up", NOW, since)
    gaps = {"model": Interval(-0.1, -0.5, 0.3), "ridge": Interval(0.2, 0.0, 0.4), "random": Interval(0.0)}
    return PanelData(
        home=Path("/home/of/tests"),
        made_at=NOW,
        holds_sample=False,
        max_age_days=30,
        thresholds={"mandatory_coverage": 1.0, "family_coverage": 0.7},
        serving=served if serving else refused,
        alerts=(OpenAlert(failed.asset, failed.check, failed.check, "ERROR", since, failed.description, OPERATOR),),
        gaps=(
            Gap(
                "tolaria",
                "context.throughput",
                True,
                "missing: tolaria.system_state.samples_per_s",
                (run, "run-2"),
                since,
                8,
                16,
            ),
            Gap("kasmina", "seed.success_rate", False, "missing: kasmina.seed_state.success_rate", (run,), since, 3, 4),
        ),
        feeds=(
            Feed("kasmina", "current", NOW - _HOUR, 2, 1, 40, NOW - 2 * _HOUR, 12),
            Feed("oona", "unknown", None, 0, 0, 0, None, 0),
            Feed("tolaria", "current", NOW - _HOUR, 2, 1, 90, NOW - 2 * _HOUR, 0),
            Feed("urabrask", "silent", NOW - 61 * _HOUR, 2, 0, 9, None, 0),
        ),
        rejects=(Rejected("kasmina", "rejects.kasmina_seed_state", reason, 12),),
        keys=(KeyCoverage("context.throughput", "node.context", "tolaria", True, 8, 16, 0.5),),
        runs=(
            Run(run, 0.8, {"node.layer": 0.9, "node.seed": None}, ("context.throughput",), (), 2, ("tolaria", "kasmina")),
            Run("run-2", 0.9, {"node.layer": 1.0, "node.seed": 0.2}, ("context.throughput",), ("node.seed",), 1, ("tolaria",)),
        ),
        registries=(RegistrySize("layer_type", 3, 25, 1024, 1),),
        norms=(Norm("loss", "step metric", 1.2, 0.4, 16, NOW),),
        builds=(Build(BUILD, since, None, gaps, 0.77, {"risk_ece_after": 0.07}),),
        checks=(passed, failed),
        stages={"features": NOW},
        rebuilds=(Rebuild("c" * 36, "rebuild", "SUCCESS", NOW, 41.0),),
        rows={"tolaria.system_state": 32},
        signals=(
            ("tamiyo.gnn.feature_coverage", 0.9, {}),
            ("tamiyo.gnn.feature_coverage.node.layer", 0.9, {}),
            ("tamiyo.gnn.bsds_missing", 0.0, {}),
            ("tamiyo.gnn.bsds_partial", 1.0, {}),
            ("degraded_inputs", 0.2, {"level": "WARNING", "threshold": "0.3"}),
        ),
    )
