"""What is sent of an image: its file's own bytes, or a PNG of what the student sees."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.data.images import decode
from client.data.sending import as_sent


def _file(width: int, height: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return _saved(Image.fromarray(pixels))


def _saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


_NOISE = Image.fromarray(decode(_file(50, 40)))
_DEEP = Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000)
_GLYPH = Image.new("RGBA", (9, 5), (0, 0, 0, 0))


@pytest.mark.parametrize(
    "content",
    [
        _saved(_NOISE, "JPEG", exif=_turned(6)),
        _saved(_NOISE, "JPEG", exif=_turned(2)),
        _saved(_NOISE, exif=_turned(3)),
        _saved(_GLYPH),
        _saved(_GLYPH, "WEBP", lossless=True),
        _saved(Image.new("P", (9, 5)), transparency=0),
        _saved(Image.new("P", (9, 5)), transparency=b"\0\x80"),
        _saved(Image.new("L", (9, 5)), transparency=0),
        _saved(_DEEP),
        _saved(_DEEP, transparency=5000),
    ],
    ids=[
        "turned JPEG",
        "mirrored",
        "turned PNG",
        "RGBA",
        "WebP",
        "palette",
        "palettes",
        "grey",
        "deep",
        "deep and clear",
    ],
)
def test_an_image_that_others_would_see_otherwise_is_sent_as_it_is_seen(content: bytes) -> None:
    seen, sent = decode(content), as_sent(content)
    with Image.open(BytesIO(sent)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert (np.asarray(image) == seen).all()
        assert not image.getexif()
    assert as_sent(sent) is sent


@pytest.mark.parametrize(
    "content",
    [
        _saved(_NOISE, "JPEG", exif=_turned(1)),
        _saved(_NOISE.convert("RGBA")),
        _saved(_NOISE.quantize()),
        _saved(_NOISE.convert("L")),
        _saved(_NOISE.convert("1")),
        _saved(_NOISE.convert("CMYK"), "JPEG"),
    ],
    ids=["JPEG", "opaque", "palette", "grey", "black or white", "CMYK"],
)
def test_an_image_that_others_see_alike_is_sent_as_its_very_bytes(content: bytes) -> None:
    assert as_sent(content) is content


def test_no_side_is_sent_that_a_model_would_only_reduce() -> None:
    turned = _saved(Image.fromarray(decode(_file(1000, 600))), exif=_turned(8))
    assert decode(as_sent(turned)).shape == (640, 384, 3)
