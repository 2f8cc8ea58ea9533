"""Write pictures of assets to `$TAMIYO_HOME/pictures` and link to them, so that the event log stays small.

An event is stored for ever, so the picture itself is not in it: a path, and a thumbnail where the UI would show one.
"""

import base64
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import dagster as dg

from lake.durable.publish import publish_file

if TYPE_CHECKING:
    from PIL.Image import Image

DIRECTORY: Final = "pictures"
THUMBNAIL_BYTES: Final = 8_000  # most base64 bytes of a thumbnail in an event; an event is stored twice a run
_WIDTHS: Final = (960, 720, 540, 400, 300, 200)
_COLOURS: Final = 16
_DIGEST: Final = "tamiyo:digest"
_SIGNATURE_AND_HEADER: Final = 33  # bytes of a PNG before its first chunk that may be text


def picture_metadata(
    home: Path, asset: str, name: str, digest: str, draw: Callable[[], bytes], alt: str, *, thumbnail: bool = True
) -> dict[str, dg.MetadataValue]:
    """Return metadata `<name>_file`, the path of a picture, and `<name>`, a thumbnail in Markdown of less than 8 KB.

    The picture is drawn and published as `pictures/<asset>/<name>.png` if there is none of `digest`, the digest of the rows
    that it shows. `alt` is its text for those who can't see it. No thumbnail is made if none is asked for or small enough.
    """
    path = home / DIRECTORY / asset / f"{name}.png"
    if _digest_of(path) != digest:
        publish_file(path, _with_text(draw(), _DIGEST, digest))
    found: dict[str, dg.MetadataValue] = {f"{name}_file": dg.MetadataValue.path(path)}
    small = _thumbnail(path) if thumbnail else None
    return found if small is None else found | {name: dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{small})")}


def _digest_of(path: Path) -> str | None:
    """Return the digest that a published picture was drawn from; None if there is no readable picture."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            found = picture.info.get(_DIGEST)
    except OSError:  # absent, or damaged (UnidentifiedImageError is one too): drawn again
        return None
    return None if found is None else str(found)


def _with_text(png: bytes, key: str, value: str) -> bytes:
    """Return the PNG with a text chunk behind its header."""
    chunk = b"tEXt" + key.encode("latin-1") + b"\0" + value.encode("latin-1")
    framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return png[:_SIGNATURE_AND_HEADER] + framed + png[_SIGNATURE_AND_HEADER:]


def _thumbnail(path: Path) -> str | None:
    """Return the widest copy of a picture that stays under the bound, in few colours, as base64; None if there is none."""
    from PIL import Image

    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    for width in sorted({min(width, picture.width) for width in _WIDTHS}, reverse=True):
        found = _encoded(picture, width)
        if len(found) < THUMBNAIL_BYTES:
            return found
    return None


def _encoded(picture: "Image", width: int) -> str:
    height = max(1, round(picture.height * width / picture.width))
    buffer = io.BytesIO()
    picture.resize((width, height)).quantize(_COLOURS).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
