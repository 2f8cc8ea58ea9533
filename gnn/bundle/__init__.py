"""Write, read, preflight, promote and roll back the checkpoint bundle."""

from gnn.bundle.build_id import BuildInputs
from gnn.bundle.gates import Gate, GateConfig, gates
from gnn.bundle.preflight import Mismatch, PreflightReport, preflight
from gnn.bundle.promote import PromotionReport, promote, rollback, serving
from gnn.bundle.read import Bundle, read_bundle
from gnn.bundle.write import bundle_path, is_published, write_bundle

__all__ = [
    "BuildInputs",
    "Bundle",
    "Gate",
    "GateConfig",
    "Mismatch",
    "PreflightReport",
    "PromotionReport",
    "bundle_path",
    "gates",
    "is_published",
    "preflight",
    "promote",
    "read_bundle",
    "rollback",
    "serving",
    "write_bundle",
]
