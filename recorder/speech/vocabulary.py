"""Make Simic's registry snapshots: the recorder's vocabularies at fixed indices, only ever appended to."""

from types import MappingProxyType
from typing import Final

from recorder.hosts.spec import FAMILIES
from recorder.watch.activations import MODULES
from schemas.configuration import BLENDING_METHODS
from schemas.kernels import KERNELS

SEED_IDS: Final = ("seed-1", "seed-2", "seed-3", "seed-4")
_LAYERS: Final = (
    "Linear",
    "Conv1d",
    "Conv2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "LayerNorm",
    "RMSNorm",
    "Dropout",
    "Embedding",
    "MultiheadAttention",
    "LSTM",
    "GRU",
    "RNN",
    "MaxPool2d",
    "AvgPool2d",
    "AdaptiveAvgPool2d",
    "Flatten",
)

SNAPSHOTS: Final = MappingProxyType(
    {
        "seed": SEED_IDS,
        "blueprint": KERNELS,
        "schedule": BLENDING_METHODS,
        "layer_type": _LAYERS,
        "activation_type": ("none", *MODULES.values()),
        "optimizer_family": FAMILIES,
        "hazard_class": ("LOW", "MEDIUM", "HIGH", "CRITICAL"),
    }
)


def snapshot(name: str) -> dict[str, int]:
    """Return the registry `name` as `{key: index}` from index 1."""
    return {key: index for index, key in enumerate(SNAPSHOTS[name], start=1)}
