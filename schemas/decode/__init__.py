"""Decode the bytes of an export into contract rows and rejects, in bounded chunks; one module per format.

Names are imported on first use: settings need only `Limits`, while the decoders import polars and protobuf.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from schemas.decode.dispatch import decode_file, decode_packets
    from schemas.decode.limits import Limits
    from schemas.decode.shape.collector import Decoded

__all__ = ["Decoded", "Limits", "decode_file", "decode_packets"]

_MODULES: Final = {"Decoded": "shape.collector", "Limits": "limits", "decode_file": "dispatch", "decode_packets": "dispatch"}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
