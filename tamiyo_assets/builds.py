"""Builds: what a bundle of the current tables would be made from, and what is known of one that exists."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gnn.code_version import code_version
from lake.durable.publish import publish_file
from lake.durable.strict_json import read_object
from lake.store.versions import Versions
from schemas.configuration import TrainingConfig
from schemas.errors import StorageError
from tamiyo_assets.resources.features import FeatureSource

if TYPE_CHECKING:
    from gnn.bundle import BuildInputs, Gate
    from gnn.bundle.manifest import Manifest

TRAINED: Final = "trained.json"


def build_inputs(source: FeatureSource, versions: Versions, config: TrainingConfig) -> "BuildInputs":
    """Content digests of the tables, registries and norms that `source` read, the code version and the configuration."""
    from gnn.bundle import BuildInputs

    return BuildInputs(
        tables=versions.at(source.versions()),
        registries=source.registries().digests(),
        norms=source.norms().digest,
        code=code_version(),
        configuration=config.model_dump(mode="json"),
    )


def note_trained(home: Path, build_id: str) -> None:
    """Remember the build of the newest training, also if that found the build published already."""
    publish_file(home / TRAINED, (json.dumps({"build_id": build_id}) + "\n").encode("ascii"))


def last_trained(home: Path) -> str | None:
    """Return the build id of the newest training; None before the first one."""
    path = home / TRAINED
    if not path.exists():
        return None
    build_id = read_object(path, StorageError).get("build_id")
    return build_id if isinstance(build_id, str) else None


def whole_build_id(home: Path, start: str) -> str:
    """The one published build id that begins so; `start` itself where none does, or several do."""
    bundles = home / "bundles"
    found = [path.name for path in bundles.iterdir() if path.name.startswith(start)] if start and bundles.is_dir() else []
    return found[0] if len(found) == 1 else start


@dataclass(frozen=True)
class BuildReport:
    """One bundle: its manifest, what its gates say, and whether it serves."""

    path: Path
    manifest: "Manifest"
    gates: "tuple[Gate, ...]"
    serving: bool

    @property
    def reasons(self) -> list[str]:
        """Why it would not be promoted: the failed gates, in words."""
        return [f"gate {gate.name}: {gate.detail}" for gate in self.gates if not gate.passed]

    @property
    def figures(self) -> dict[str, float]:
        """The numbers of the report by name: `gap_closed`, `gap_closed_lead` (means), `ece` (calibrated), and the rest."""
        metrics = self.manifest.metrics
        means = {
            "gap_closed": (metrics.get("gap_closed") or {}).get("model"),
            "gap_closed_lead": metrics.get("gap_closed_minus_best_baseline"),
        }
        found = {name: figure["mean"] for name, figure in means.items() if figure and figure.get("mean") is not None}
        plain = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        named = {"ece": plain["risk_ece_after"]} if "risk_ece_after" in plain else {}
        return {name: float(value) for name, value in (found | named | plain).items()}

    @property
    def heads(self) -> dict[str, str]:
        """Head -> `trained`, or why not."""
        return {name: "trained" if head.trained else str(head.reason) for name, head in self.manifest.heads.items()}


def build_report(home: Path, build_id: str, gates: Mapping[str, Any] | None = None) -> BuildReport:
    """The report of a published bundle; BundleRejected where it is damaged or absent."""
    from gnn.bundle import GateConfig, bundle_path, read_bundle, serving
    from gnn.bundle import gates as judge

    bundle = read_bundle(bundle_path(home, build_id))
    return BuildReport(
        path=bundle_path(home, build_id),
        manifest=bundle.manifest,
        gates=judge(bundle.manifest, GateConfig(**(gates or {}))),
        serving=serving(home) == build_id,
    )
