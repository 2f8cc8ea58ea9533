"""Draw a host's specification, which decides how it trains, from its index and the recording's seed alone."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.configuration import BLENDING_METHODS

FAMILIES: Final = ("sgd", "adam", "adamw", "rmsprop", "adagrad")
BASE_RATE: Final = {"sgd": 0.05, "adam": 2e-3, "adamw": 2e-3, "rmsprop": 1e-3, "adagrad": 2e-2}
ACTIVATIONS: Final = ("relu", "tanh", "gelu", "silu", "sigmoid", "leaky_relu")
_BATCH: Final = {"mlp": 64}  # largest batch; 32 for the others, whose steps cost more
_FAMILY_SHARES: Final = (0.25, 0.25, 0.2, 0.1, 0.2)  # rmsprop has no fused step on the CPU


@dataclass(frozen=True)
class HostSpec:
    """One host. `index` of `seed` always gives the same one; `stress` marks deliberately harsh training.

    `rate_factor` multiplies the family's usual learning rate; `clip` is the gradient norm limit (0 = none).
    """

    seed: int
    index: int
    data_set: str
    architecture: str
    width: int
    depth: int
    activation: str
    norm: str
    dropout: float
    init_gain: float
    optimizer: str
    learning_rate: float
    weight_decay: float
    momentum: float
    batch: int
    samples: int
    clip: float
    blending: str
    alpha_steps: int
    risk_tolerance: float
    stress: bool

    @property
    def blueprint_id(self) -> str:
        """The host's id in Urza, which decides its split."""
        return f"host-{self.data_set}-{self.architecture}-s{self.seed}-{self.index:04d}"

    @property
    def run_id(self) -> str:
        """The training run's id: one run a host."""
        return f"run-s{self.seed}-{self.index:04d}"

    @property
    def experiment(self) -> str:
        """`<data set>/<architecture>`, as contracts.md wants it."""
        return f"{self.data_set}/{self.architecture}"


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def draw_host(seed: int, index: int, data_set: str, architecture: str, *, stress: bool) -> HostSpec:
    """Draw host `index` of `seed`: varied width, depth, activation, normalization, optimizer, rate, and amount of data."""
    rng = np.random.default_rng([seed, index])
    family = str(rng.choice(FAMILIES, p=_FAMILY_SHARES))
    rate = BASE_RATE[family] * _log_uniform(rng, 0.15, 2.0)
    harsh = float(rng.uniform(3.0, 10.0))
    return HostSpec(
        seed=seed,
        index=index,
        data_set=data_set,
        architecture=architecture,
        width=int(rng.choice((24, 32, 48, 64, 96))),
        depth=int(rng.integers(2, 6)),
        activation=str(rng.choice(ACTIVATIONS)),
        norm=str(rng.choice(("none", "none", "none", "layer", "batch"))),
        dropout=float(rng.choice((0.0, 0.0, 0.1, 0.3))),
        init_gain=float(rng.choice((0.5, 1.0, 1.0, 1.0, 1.6))),
        optimizer=family,
        learning_rate=rate * (harsh if stress else 1.0),
        weight_decay=float(rng.choice((0.0, 1e-4, 1e-2))),
        momentum=float(rng.choice((0.0, 0.9))),
        batch=min(int(rng.choice((16, 32, 64))), _BATCH.get(architecture, 32)),
        samples=int(rng.choice((200, 400, 800, 1200))),
        clip=0.0 if stress else float(rng.choice((0.0, 1.0, 5.0))),
        blending=str(rng.choice(BLENDING_METHODS)),
        alpha_steps=1 if stress else int(rng.choice((10, 20, 30))),
        risk_tolerance=round(float(rng.uniform(0.1, 0.9)), 2),
        stress=stress,
    )
