"""Pictures of assets: drawn once for the same rows, whole or not at all, and never large in an event."""

import base64
import io
from pathlib import Path

import dagster as dg
import numpy as np
from PIL import Image

from tamiyo_assets.assets.pictures import THUMBNAIL_BYTES, picture_metadata

PREFIX = "![a field](data:image/png;base64,"


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def noise(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)


class Drawing:
    """Draws and counts."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.times = 0

    def __call__(self) -> bytes:
        self.times += 1
        return png(self.pixels)

    def shown(self, home: Path, digest: str, **how: bool) -> dict[str, dg.MetadataValue]:
        return picture_metadata(home, "coverage.by_key", "field", digest, self, "a field", **how)


def small(found: dict[str, dg.MetadataValue]) -> str:
    return str(found["field"].value).removeprefix(PREFIX).removesuffix(")")


def test_a_picture_is_a_file_that_is_linked_with_a_thumbnail(tmp_path: Path) -> None:
    pixels = np.kron(noise(30), np.ones((50, 50, 1), dtype=np.uint8))
    found = Drawing(pixels).shown(tmp_path, "one")
    path = tmp_path / "pictures" / "coverage.by_key" / "field.png"
    assert found["field_file"] == dg.MetadataValue.path(path)
    with Image.open(path) as whole:
        assert np.array_equal(np.asarray(whole), pixels)
    assert len(small(found)) < THUMBNAIL_BYTES
    with Image.open(io.BytesIO(base64.b64decode(small(found), validate=True))) as thumbnail:
        assert 200 <= thumbnail.width == thumbnail.height < 1500


def test_nothing_is_drawn_or_written_while_the_rows_are_the_same(tmp_path: Path) -> None:
    drawing = Drawing(noise(20))
    first = drawing.shown(tmp_path, "one")
    path = Path(str(first["field_file"].value))
    written = path.stat()
    assert drawing.shown(tmp_path, "one") == first
    assert (drawing.times, path.stat().st_ino, path.stat().st_mtime_ns) == (1, written.st_ino, written.st_mtime_ns)
    drawing.pixels = noise(40)
    assert drawing.shown(tmp_path, "two") != first
    assert drawing.times == 2
    assert [other.name for other in path.parent.iterdir()] == ["field.png"]


def test_a_damaged_picture_is_drawn_again(tmp_path: Path) -> None:
    drawing = Drawing(noise(20))
    first = drawing.shown(tmp_path, "one")
    Path(str(first["field_file"].value)).write_bytes(b"not a picture")
    assert drawing.shown(tmp_path, "one") == first
    assert drawing.times == 2


def test_what_can_not_be_small_has_no_thumbnail(tmp_path: Path) -> None:
    assert set(Drawing(noise(600)).shown(tmp_path, "one")) == {"field_file"}
    assert set(Drawing(noise(20)).shown(tmp_path, "two", thumbnail=False)) == {"field_file"}
