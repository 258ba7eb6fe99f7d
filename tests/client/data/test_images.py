"""Bytes to pixels: formats, modes, orientation, limits."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from client.data import images
from client.data.images import UnreadableImage, decode, decode_square


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


@pytest.mark.parametrize("transparent", [None, 257])
def test_grey_of_16_bits_keeps_its_tones(transparent: int | None) -> None:
    deep = Image.fromarray(np.array([[0, 257, 511, 32768, 65535]], np.uint16))
    options = {} if transparent is None else {"transparency": transparent}
    pixels = decode(_encoded(deep, "PNG", **options))
    assert (pixels == pixels[:, :, :1]).all()
    assert pixels[0, :, 0].tolist() == [0, 1 if transparent is None else 255, 1, 128, 255]


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "seen"),
    [
        ("1", 1, "PNG", (255, 255, 255)),
        ("LA", (40, 0), "PNG", (255, 255, 255)),
        ("LA", (40, 255), "PNG", (40, 40, 40)),
        ("CMYK", (0, 255, 255, 0), "JPEG", (255, 0, 0)),
    ],
)
def test_what_a_colour_of_a_mode_is_seen_as(
    mode: str, colour: int | tuple[int, ...], kind: str, seen: tuple[int, int, int]
) -> None:
    pixels = decode(_encoded(Image.new(mode, (3, 2), colour), kind))
    assert np.abs(pixels.astype(int) - seen).max() < 3


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(_encoded(Image.new("RGB", (6, 2)), "JPEG", exif=exif)).shape == (6, 2, 3)


@pytest.mark.parametrize("orientation", range(9))
def test_every_orientation_is_the_one_that_pillow_makes_of_it(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = _encoded(Image.effect_noise((6, 2), 90), exif=exif)
    expected = ImageOps.exif_transpose(Image.open(BytesIO(content))).convert("RGB")
    assert (decode(content) == np.asarray(expected)).all()


def test_odd_exif_beside_the_orientation_does_not_matter() -> None:
    orientation = b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
    resolution_as_text = b"\x01\x1a\0\x02\0\0\0\x01x\0\0\0"
    tags = b"\0\0\0\x08\0\x02" + orientation + resolution_as_text
    content = _encoded(Image.new("RGB", (6, 2)), "JPEG", exif=b"Exif\0\0MM\0*" + tags + bytes(4))
    assert decode(content).shape == (6, 2, 3)


def test_an_image_with_damaged_exif_is_a_damaged_one() -> None:
    content = _encoded(Image.new("RGB", (6, 2)), "JPEG", dpi=(72, 72), exif=b"Exif\0\0MM\0*")
    with pytest.raises(UnreadableImage):
        decode(content)
    with pytest.raises(UnreadableImage):
        decode_square(content, 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(400, 200), (40, 20), (30, 900)])
def test_a_square_holds_the_whole_image_and_knows_its_shape(kind: str, size: tuple[int, int]) -> None:
    left_red = Image.new("RGB", size, "blue")
    left_red.paste("red", (0, 0, max(1, size[0] // 2), size[1]))
    pixels, aspect = decode_square(_encoded(left_red, kind), 32)
    assert pixels.shape == (32, 32, 3)
    assert aspect == pytest.approx(size[0] / size[1], rel=0.02)
    assert pixels[:, 0, 0].min() > 150
    assert pixels[:, -1, 2].min() > 150


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"<svg/>", b"\xff\xd8\xff\xe0" + b"\0" * 64]
)
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(UnreadableImage):
        decode(content)


def test_other_formats_are_refused() -> None:
    with pytest.raises(UnreadableImage):
        decode(_encoded(Image.new("RGB", (2, 2)), "PPM"))


def test_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 15)
    with pytest.raises(UnreadableImage, match="4 x 4"):
        decode(_encoded(Image.new("RGB", (4, 4))))
