"""The features of the current tables, registries and norms: computed once, shared by the assets that read them."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from gnn.code_version import code_version
from gnn.join.sources import Sources
from gnn.norms.published import Norms
from gnn.norms.published import load as load_norms
from gnn.registry.refresh import Registries
from gnn.registry.refresh import load as load_registries
from lake.store.contracts import read_contracts
from lake.store.table_store import TableStore
from lake.store.versions import Versions
from schemas.contracts import TABLES
from schemas.features import GROUPS

if TYPE_CHECKING:
    from gnn.encode.build import FeatureSet

# the contract tables that a feature is made of; what the others hold changes no graph
FEATURE_TABLES: Final = tuple(
    sorted({"tolaria.system_state"} | {table for group in GROUPS for one in group.features for table, _ in one.clauses})
)


class FeatureSource:
    """One feature set per state of its inputs; nothing is kept once a table, a registry or the norms have changed."""

    def __init__(self, home: Path, tables: TableStore) -> None:
        """Features of the tables, registries and norms of one home."""
        self._home = home
        self._tables = tables
        self._state: tuple[object, ...] = ()
        self._versions: dict[str, int | None] = {}
        self._kept: dict[str, Any] = {}

    def sources(self) -> Sources:
        """The contract tables."""
        found: Sources = self._once("sources", lambda: Sources(read_contracts(self._tables, self._versions)))
        return found

    def versions(self) -> dict[str, int]:
        """The table versions that everything here was made from."""
        self.sources()
        return {name: version for name, version in self._versions.items() if version is not None}

    def registries(self) -> Registries:
        """The published registries."""
        return load_registries(self._home / "registries")

    def norms(self) -> Norms:
        """The published norms, or those before anything was measured."""
        return load_norms(self._home) or Norms.default()

    def features(self) -> "FeatureSet":
        """The feature set of every packet."""
        from gnn.encode.build import build_features

        found: FeatureSet = self._once(
            "features", lambda: build_features(self.sources(), norms=self.norms(), registries=self.registries())
        )
        return found

    def tables(self) -> dict[str, pa.Table]:
        """The feature tables by name."""
        from gnn.join.tables import feature_tables

        found: dict[str, pa.Table] = self._once("tables", lambda: feature_tables(self.features()))
        return found

    def inputs(self, versions: Versions) -> dict[str, str]:
        """Content digest of everything that features and graphs are made from, by name."""
        tables = {f"table.{name}": versions.of(name).digest for name in FEATURE_TABLES}
        registries = {f"registry.{name}": digest for name, digest in self.registries().digests().items()}
        return tables | registries | {"norms": self.norms().digest, "code": code_version()}

    def dataset_directory(self, versions: Versions) -> Path:
        """Where the graph dataset of these inputs is, or will be."""
        text = json.dumps(self.inputs(versions), sort_keys=True)
        return self._home / "graphs" / hashlib.sha256(text.encode()).hexdigest()

    def by_key(self) -> pa.Table:
        """`coverage.by_key` of every packet."""
        from gnn.coverage.counts import by_key

        found: pa.Table = self._once("by_key", lambda: by_key(self.features()))
        return found

    def by_family(self) -> pa.Table:
        """`coverage.by_family` of every packet."""
        from gnn.coverage.counts import by_family

        return by_family(self.by_key())

    def gaps(self) -> pa.Table:
        """`coverage.gaps`: what is missing, since when, and whom to ask."""
        from gnn.coverage.gaps import gaps

        return gaps(self.features())

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        versions = {table: self._tables.version(table) for table in TABLES}
        state = (*versions.values(), *self.registries().digests().values(), self.norms().digest)
        if state != self._state:
            self._state, self._versions, self._kept = state, versions, {}
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]
