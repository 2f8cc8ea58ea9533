"""Decide online: one bundle, a packet in, a decision out; a decision does no I/O.

Names are imported when they are first used, so that a user of one part of this package need not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gnn.online.config import ServingConfig
    from gnn.online.policy import Decision, TamiyoPolicy
    from gnn.online.snapshot import Snapshot

__all__ = ["Decision", "ServingConfig", "Snapshot", "TamiyoPolicy"]

_MODULES: Final = {"Decision": "policy", "ServingConfig": "config", "Snapshot": "snapshot", "TamiyoPolicy": "policy"}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
