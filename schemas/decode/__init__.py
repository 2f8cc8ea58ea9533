"""Bytes of an export -> contract rows and rejects, in bounded chunks; one module per format."""

from schemas.decode.collector import Decoded
from schemas.decode.files import decode_file, decode_packets
from schemas.decode.limits import Limits

__all__ = ["Decoded", "Limits", "decode_file", "decode_packets"]
