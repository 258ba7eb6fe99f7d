"""Bytes to pixels: formats, modes, orientation, limits."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.data import images
from client.data.images import PixelStore, UnreadableImage, decode


def _encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    assert decode(_encoded(Image.new(mode, (5, 3)))).shape == (3, 5, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_three_formats(kind: str) -> None:
    pixels = decode(_encoded(Image.new("RGB", (8, 8), (200, 30, 40)), kind))
    assert np.abs(pixels.astype(int) - (200, 30, 40)).max() < 12


def test_transparency_is_laid_on_white() -> None:
    assert (decode(_encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 0)))) == 255).all()


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(_encoded(Image.new("RGB", (6, 2)), "JPEG", exif=exif)).shape == (6, 2, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_large_images_are_reduced_and_small_ones_left(kind: str) -> None:
    assert decode(_encoded(Image.new("RGB", (400, 200)), kind), short_side=50).shape == (50, 100, 3)
    assert decode(_encoded(Image.new("RGB", (40, 20)), kind), short_side=50).shape == (20, 40, 3)


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"<svg/>", b"\xff\xd8\xff\xe0" + b"\0" * 64]
)
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(UnreadableImage):
        decode(content)


def test_other_formats_are_refused() -> None:
    with pytest.raises(UnreadableImage):
        decode(_encoded(Image.new("RGB", (2, 2)), "BMP"))


def test_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 15)
    with pytest.raises(UnreadableImage, match="4 x 4"):
        decode(_encoded(Image.new("RGB", (4, 4))))


def test_a_store_gives_the_same_pixels_whether_they_fit_or_not(tmp_path: Path) -> None:
    paths = []
    for n in range(4):
        paths.append(tmp_path / f"{n}.png")
        Image.new("RGB", (10, 10), (n, n, n)).save(paths[-1])
    for max_bytes in (0, 700, 10_000):
        store = PixelStore(paths, short_side=64, max_bytes=max_bytes)
        for _ in range(2):
            loaded = store.load([3, 1, 3])
            assert [int(pixels[0, 0, 0]) for pixels in loaded] == [3, 1, 3]
