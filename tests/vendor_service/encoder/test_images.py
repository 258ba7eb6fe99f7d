"""Decoding what strangers send: what is accepted is as open_clip would see it, what is not is named."""

import base64
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shared.images.colours import loaded_rgb
from shared.images.decoder import ImageDecoder
from shared.images.limits import ImageLimits
from shared.processes.forked import NeedsMore
from tests.vendor_service.hostile_images import jpeg_of_scans, png_chunk, with_index
from tests.vendor_service.local_vendor import image_file
from vendor_service.encoder.preprocessing import Preprocessing
from vendor_service.errors import APIError


class WholeImage(Preprocessing):
    """The vendor's preprocessing, but that it keeps every pixel."""

    def draft_size(self, width: int, height: int) -> tuple[int, int]:
        return width, height

    def pixels(self, image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.array(loaded_rgb(image))


PREPROCESSOR = WholeImage({"size": 8})
DECODER = ImageDecoder(
    PREPROCESSOR, ImageLimits(max_bytes=200_000, max_pixels=250_000), memory_bytes=10_000_000
)


@pytest.fixture(autouse=True)
def limit_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have other tests find Pillow's limit, which a task lifts in its process."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


def decode(content: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The pixels of a file, preprocessed: bytes of shape (height, width, 3)."""
    return DECODER.decode(base64.b64encode(content).decode())


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG file that declares a size and holds whatever chunks it is given."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("form", "mode"),
    [("PNG", each) for each in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")]
    + [("JPEG", each) for each in ("RGB", "L", "CMYK")]
    + [("WEBP", each) for each in ("RGB", "RGBA")],
)
def test_every_mode_comes_out_as_open_clip_sees_it(form: str, mode: str) -> None:
    image = Image.effect_noise((31, 17), 60)
    image = image.convert("I").convert("I;16") if mode == "I;16" else image.convert("RGB").convert(mode)
    buffer = BytesIO()
    image.save(buffer, form)
    decoded = decode(buffer.getvalue())
    assert decoded.shape == (17, 31, 3)
    with Image.open(buffer) as opened:
        assert np.array_equal(decoded, np.asarray(opened.convert("RGB")))


def test_transparency_is_dropped_and_orientation_left_alone() -> None:
    clear = Image.new("RGBA", (2, 1), (200, 100, 50, 0))
    buffer = BytesIO()
    clear.save(buffer, "PNG")
    assert decode(buffer.getvalue())[0, 0].tolist() == [200, 100, 50]

    turned = Image.new("RGB", (4, 2))
    exif = turned.getexif()
    exif[0x0112] = 6
    buffer = BytesIO()
    turned.save(buffer, "JPEG", exif=exif)
    assert decode(buffer.getvalue()).shape == (2, 4, 3)


def test_a_palette_with_transparent_entries_decodes_without_a_warning() -> None:
    image = Image.effect_noise((9, 9), 60).convert("P")
    buffer = BytesIO()
    image.save(buffer, "PNG", transparency=bytes([0, 128, 255]))
    expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decode(buffer.getvalue()), expected)


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for form in ("WEBP", "PNG"):
        buffer = BytesIO()
        frames[0].save(buffer, form, save_all=True, append_images=frames[1:], lossless=True)
        assert decode(buffer.getvalue())[0, 0].tolist() == [255, 0, 0]


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "text": (lambda: b"hello, I am a picture", "unsupported_image_format"),
    "zeros": (lambda: bytes(1000), "unsupported_image_format"),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_image_format"),
    "gif": (lambda: image_file(form="GIF"), "unsupported_image_format"),
    "tiff": (lambda: image_file(form="TIFF"), "unsupported_image_format"),
    "bmp": (lambda: image_file(form="BMP"), "unsupported_image_format"),
    "eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported_image_format"),
    "png signature alone": (lambda: b"\x89PNG\r\n\x1a\n", "invalid_image"),
    "png cut in its header": (lambda: image_file()[:20], "invalid_image"),
    "png cut in its pixels": (lambda: image_file(size=(300, 300), mode="RGB")[:-60], "invalid_image"),
    "jpeg cut in its pixels": (lambda: image_file(size=(300, 300), form="JPEG")[:-600], "invalid_image"),
    "webp cut in its pixels": (lambda: image_file(size=(300, 300), form="WEBP")[:-20], "invalid_image"),
    "png without pixels": (lambda: png(10, 10), "invalid_image"),
    "png of no size": (lambda: png(0, 10), "invalid_image"),
    "png with a wrong checksum": (lambda: image_file().replace(b"IDAT", b"IDAU"), "invalid_image"),
    "png with garbage for pixels": (lambda: png(9, 9, png_chunk(b"IDAT", b"garbage")), "invalid_image"),
    "bomb of 2.5 gigapixels": (lambda: png(50_000, 50_000), "image_too_large"),
    "a line of 33,000 pixels": (lambda: png(1, 33_000), "image_too_large"),
    "bomb of 100 megapixels": (lambda: png(10_000, 10_000), "image_too_large"),
    "one pixel too many": (lambda: image_file(size=(501, 500)), "image_too_large"),
    "text chunk that unpacks to 80 MB": (
        lambda: png(1, 1, png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000)))),
        "invalid_image",
    ),
    "larger than the byte limit": (lambda: image_file() + bytes(200_000), "image_too_large"),
    "empty": (lambda: b"", "empty_input"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_name(name: str) -> None:
    make, code = HOSTILE[name]
    with pytest.raises(APIError) as refused:
        decode(make())
    assert refused.value.code == code


@pytest.mark.parametrize(
    "encoded", ["a", "AAAA=", "AA=A", "####", "é" * 4, "data:image/png;base64,AAAA", "AAA\n"]
)
def test_only_strict_base64_is_read(encoded: str) -> None:
    with pytest.raises(APIError) as refused:
        DECODER.decode(encoded)
    assert refused.value.code == "invalid_image"


def test_the_limits_themselves_are_allowed() -> None:
    assert decode(image_file(size=(500, 500))).shape == (500, 500, 3)
    content = image_file()
    exact = ImageDecoder(
        PREPROCESSOR, ImageLimits(max_bytes=len(content), max_pixels=40 * 30), memory_bytes=1
    )
    assert exact.decode(base64.b64encode(content).decode()).shape == (30, 40, 3)


class SmallImage(WholeImage):
    """A preprocessor that wants as few pixels as a decoder can give."""

    def draft_size(self, width: int, height: int) -> tuple[int, int]:
        return 1, 1


@pytest.mark.parametrize(
    ("side", "told"), [(13_000, "large"), (13_500, "large"), (17_000, "large"), (17_400, "image_too_large")]
)
def test_the_operators_limit_holds_and_not_that_of_pillow(side: int, told: str) -> None:
    limits = ImageLimits(max_bytes=200_000, max_pixels=300_000_000)
    decoder = ImageDecoder(PREPROCESSOR, limits, memory_bytes=1)
    with pytest.raises((APIError, NeedsMore)) as ended:
        decoder.do(png(side, side), memoryview(b""), lambda _: None, encoded=False, free=False)
    error = ended.value
    assert isinstance(error, APIError | NeedsMore)
    assert (error.grade if isinstance(error, NeedsMore) else error.code) == told


@pytest.mark.parametrize("made", [bytes, with_index], ids=["JPEG", "MPO"])
def test_an_index_of_further_images_does_not_change_how_long_a_jpeg_takes(
    made: Callable[[bytes], bytes],
) -> None:
    limits = ImageLimits(max_bytes=20_000_000, max_pixels=50_000_000)
    decoder = ImageDecoder(SmallImage({"size": 8}), limits, memory_bytes=1 << 30)
    output = memoryview(bytearray(450 * 450 * 3))
    many_scans = made(jpeg_of_scans(64, side=3500))
    one_scan = made(image_file(size=(3600, 3600), form="JPEG"))
    for file in (many_scans, one_scan):
        with Image.open(BytesIO(file)) as image:
            assert image.format == ("MPO" if made is with_index else "JPEG")
    with pytest.raises(NeedsMore) as needs:
        decoder.do(many_scans, output, lambda _: None, encoded=False, free=False)
    assert needs.value.grade == "long"
    decoder.do(one_scan, output, lambda _: None, encoded=False, free=False)


def test_an_image_says_how_much_more_than_its_share_it_needs() -> None:
    limits = ImageLimits(max_bytes=20_000_000, max_pixels=50_000_000)
    decoder = ImageDecoder(SmallImage({"size": 8}), limits, memory_bytes=10_000_000)
    output = memoryview(bytearray(450 * 450 * 3))
    with pytest.raises(NeedsMore) as needs:
        decoder.do(image_file(size=(1000, 1000)), output, lambda _: None, encoded=False, free=False)
    assert (needs.value.grade, needs.value.more_bytes) == ("large", 2_000_000)
