"""Define asset checks: what must hold of the tables. Only `preflight` blocks: no fault of one table stops the others.

The checks `schema`, `registry_conflict`, `registry_capacity` and `serving` are evaluated by the steps of their assets.
"""

from tamiyo_assets.checks.contracts import CONTRACT_CHECKS
from tamiyo_assets.checks.coverage import COVERAGE_CHECKS
from tamiyo_assets.checks.graphs import GRAPH_CHECKS
from tamiyo_assets.checks.model import MODEL_CHECKS
from tamiyo_assets.checks.sheets import SHEET_CHECKS

CHECKS = (*CONTRACT_CHECKS, *COVERAGE_CHECKS, *SHEET_CHECKS, *GRAPH_CHECKS, *MODEL_CHECKS)
