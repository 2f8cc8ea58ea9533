"""Collect the facts that the constraints of one decision check: seeds, capabilities, sheets and coverage, as plain arrays."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gnn.bundle.read import Bundle
from gnn.coverage.signals import CoverageFigures
from gnn.graph.builder import Built
from gnn.join.joined import Group
from gnn.join.rows import Bools, Floats
from gnn.online.config import ServingConfig
from gnn.online.snapshot import Sheet, Snapshot
from schemas.configuration import BLENDING_METHODS
from schemas.features import LAYER, SEED
from schemas.kernels import KERNELS

DORMANT: Final = "DORMANT"
_LAYER_TYPE: Final = [f.name for f in LAYER.categorical].index("layer_type")
_STAGE: Final = [f.name for f in SEED.categorical].index("lifecycle_stage")
Words = frozenset[str] | None


@dataclass(frozen=True)
class BundleFacts:
    """What a bundle's training measured: kernels bool [32], also by layer type id bool [types, 32], methods and families."""

    measured: Bools
    by_type: Bools
    dormant: int
    blending: frozenset[str]
    families: tuple[str, ...]

    @classmethod
    def of(cls, bundle: Bundle) -> "BundleFacts":
        """Read the facts from the manifest and the registries.

        Without a trained blending head no choice of methods was measured, so only the first one, `linear`, may be used.
        """
        policy, types = bundle.manifest.policy, bundle.registries["layer_type"]
        measured = np.array([kernel in policy.measured for kernel in KERNELS])
        rows = np.tile(measured, (types.capacity, 1))
        for name, kernels in policy.site_kernels.items():
            rows[types.index(name)] = [kernel in kernels for kernel in KERNELS]
        blending = bundle.manifest.heads.get("blending")
        families = bundle.registries["optimizer_family"].entries
        return cls(
            measured=measured,
            by_type=rows & measured,
            dormant=bundle.registries["lifecycle_stage"].index(DORMANT),
            blending=frozenset(BLENDING_METHODS if blending is not None and blending.trained else BLENDING_METHODS[:1]),
            families=tuple(sorted(families, key=families.__getitem__)),
        )


@dataclass(frozen=True)
class Facts:
    """The facts of one graph with S seeds and K kernels; `worth` and `harm`, float64 [S, K], are set after the network ran.

    `blending` and `families` hold, for each seed, the lower-case words that its capabilities allow, None if unknown.
    `risk_tolerance` float64 [S] is NaN if unknown. `optimizer` is the host's optimizer family and `learning_rate` its current
    learning rate, None if unknown.
    """

    seed_ids: tuple[str, ...]
    mandatory_coverage: float
    host: Sheet
    kernels: tuple[Sheet, ...]
    kernel_quarantine_only: Bools
    dormant: Bools
    measured: Bools
    at_site: Bools
    quarantine_only: Bools
    risk_tolerance: Floats
    blending: tuple[Words, ...]
    families: tuple[Words, ...]
    measured_blending: frozenset[str]
    measured_families: tuple[str, ...]
    optimizer: str | None
    learning_rate: float | None
    alpha: Floats
    config: ServingConfig
    worth: Floats
    harm: Floats

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (S, K, M): seeds, kernels, blending methods."""
        return len(self.seed_ids), len(KERNELS), len(BLENDING_METHODS)

    @property
    def optimizer_families(self) -> tuple[str, ...]:
        """The family that an adjustment would name, by seed: the host's, else the first allowed one, else a measured one."""
        first = self.measured_families[0] if self.measured_families else ""
        return tuple(self.optimizer or (min(words) if words else first) for words in self.families)

    def answered(self, worth: NDArray[np.float64], harm: NDArray[np.float64]) -> "Facts":
        """Return the facts with the utility in nats and the calibrated probability of harm, float64 [S, K] each."""
        return replace(self, worth=worth, harm=harm)


def facts_of(
    built: Built, snapshot: Snapshot, bundle: BundleFacts, coverage: CoverageFigures, config: ServingConfig, at_ns: int
) -> Facts:
    """Collect the facts of the one graph in `built`, at `at_ns`."""
    nodes = built.features.joined.nodes
    seeds, own = nodes["seed"], nodes["seed"].columns
    hosts = built.features.joined.states.hosts.arrow()
    size = seeds.size
    unanswered = np.full((size, len(KERNELS)), np.nan)
    return Facts(
        seed_ids=tuple(str(name) for name in seeds.names.arrow().to_pylist()) if seeds.names is not None else (),
        mandatory_coverage=coverage.mandatory_mean,
        host=snapshot.sheet(hosts[-1].as_py(), at_ns),
        kernels=snapshot.sheets(KERNELS, at_ns),
        kernel_quarantine_only=np.array(snapshot.quarantine_only(KERNELS, at_ns)),
        dormant=built.batch.ids["seed"][:, _STAGE].numpy() == bundle.dormant,
        measured=bundle.measured,
        at_site=_at_site(built, bundle),
        quarantine_only=own.numbers["quarantine_only"] > 0,
        risk_tolerance=own.numbers["risk_tolerance"],
        blending=_words(seeds, "allowed_blending_methods"),
        families=_words(seeds, "allowed_optimizer_families"),
        measured_blending=bundle.blending,
        measured_families=bundle.families,
        optimizer=_first_word(nodes["parameter"], "optimizer_family"),
        learning_rate=_first_number(nodes["parameter"], "learning_rate"),
        alpha=own.numbers["alpha"],
        config=config,
        worth=unanswered,
        harm=unanswered,
    )


def _at_site(built: Built, bundle: BundleFacts) -> Bools:
    """Return the kernels that were measured at sites like each seed's: bool [S, K].

    A site whose layer type was never measured may take any measured kernel; a seed that monitors no layer may take none.
    """
    batch = built.batch
    seeds, layers = batch.edge_index[("seed", "monitors", "layer")].numpy()
    allowed = np.zeros((batch.num_nodes("seed"), len(KERNELS)), dtype=np.bool_)
    types = batch.ids["layer"][:, _LAYER_TYPE].numpy()
    # the first monitored layer is the site: it is written last, so it stays
    allowed[seeds[::-1]] = bundle.by_type[types[layers]][::-1]
    return allowed


def _words(seeds: Group, name: str) -> tuple[Words, ...]:
    lists = seeds.columns.sets[name].words()
    return tuple(None if words is None else frozenset([word.lower() for word in words]) for words in lists)


def _first_word(group: Group, name: str) -> str | None:
    return next((str(word).lower() for word in group.columns.labels[name].arrow().to_pylist() if word), None)


def _first_number(group: Group, name: str) -> float | None:
    finite = group.columns.numbers[name][np.isfinite(group.columns.numbers[name])]
    return float(finite[0]) if len(finite) else None
