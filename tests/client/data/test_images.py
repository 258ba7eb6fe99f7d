"""Bytes to pixels: formats, modes, orientation, limits."""

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from client.data import images
from client.data.images import UnreadableImage, decode, decode_square, glance, read_image
from client.data.sending import as_sent


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


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "BMP", "AVIF", "HEIF"])
def test_further_formats_are_read_and_sent_as_what_the_student_sees(kind: str) -> None:
    picture = Image.new("RGB", (24, 16), (200, 30, 40))
    picture.paste((20, 60, 220), (0, 0, 12, 16))
    content = _encoded(picture, kind)
    pixels = decode(content)
    assert np.abs(pixels.astype(int) - np.asarray(picture)).mean() < 8
    sent = as_sent(content)
    assert sent.startswith(b"\x89PNG")
    assert np.array_equal(decode(sent), pixels)
    otherwise = glance(content, 8).otherwise
    assert otherwise is not None
    assert np.array_equal(otherwise, pixels)
    assert decode_square(content, 8)[1] == 1.5


def test_of_many_frames_the_first_is_seen() -> None:
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    for kind in ("GIF", "TIFF", "AVIF"):
        content = _encoded(first, kind, save_all=True, append_images=[second])
        assert np.abs(decode(content).astype(int) - (255, 0, 0)).max() < 12, kind


def test_a_gif_is_laid_on_white_and_a_photo_in_avif_is_turned_the_right_way_up() -> None:
    clear = Image.new("P", (4, 4), 0)
    clear.putpalette([0, 0, 0, 255, 0, 0])
    assert (decode(_encoded(clear, "GIF", transparency=0)) == 255).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(_encoded(Image.new("RGB", (6, 2)), "AVIF", exif=exif)).shape == (6, 2, 3)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_a_tiff_of_16_bits_keeps_its_tones(order: str) -> None:
    deep = np.array([[0, 257, 511, 32768, 65535]], order)
    head = b"II*\0" if order == "<u2" else b"MM\0*"
    content = _tiff(deep, head)
    assert decode(content)[0, :, 0].tolist() == [0, 1, 1, 128, 255]
    assert decode(as_sent(content))[0, :, 0].tolist() == [0, 1, 1, 128, 255]


def _tiff(grey: NDArray[np.uint16], head: bytes) -> bytes:
    """An uncompressed TIFF file of 16-bit grey, in the byte order of its head."""
    end = "<" if head.startswith(b"I") else ">"
    height, width = grey.shape
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8 + 2 + 12 * 9 + 4),
    ]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, grey.nbytes)]
    entries = b"".join(
        struct.pack(f"{end}HHI", tag, kind, 1)
        + (struct.pack(f"{end}HH", value, 0) if kind == 3 else struct.pack(f"{end}I", value))
        for tag, kind, value in tags
    )
    directory = struct.pack(f"{end}H", len(tags)) + entries + bytes(4)
    return head + struct.pack(f"{end}I", 8) + directory + grey.tobytes()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_whose_white_nobody_knows_are_refused(mode: str) -> None:
    with pytest.raises(UnreadableImage, match="32 bits"):
        decode(_encoded(Image.new(mode, (2, 2)), "TIFF"))


def test_what_vendors_know_is_sent_as_its_bytes() -> None:
    for kind in ("PNG", "JPEG", "WEBP", "MPO"):
        content = _encoded(Image.effect_noise((8, 8), 60).convert("RGB"), kind)
        assert as_sent(content) is content, kind
        assert glance(content, 8).otherwise is None, kind


def test_a_glance_at_a_large_jpeg_reads_all_of_it_and_makes_few_of_its_pixels() -> None:
    picture = Image.effect_noise((400, 300), 60).resize((4000, 3000)).convert("RGB")
    content = _encoded(picture, "JPEG")
    seen = glance(content, 48)
    assert (seen.side, seen.small.size, seen.otherwise) == (3000, (500, 375), None)
    exact = np.asarray(picture.resize((12, 12), Image.Resampling.BOX), int)
    assert np.abs(np.asarray(seen.small.resize((12, 12), Image.Resampling.BOX), int) - exact).max() <= 2
    with pytest.raises(UnreadableImage):
        glance(content[: -len(content) // 10], 48)


def test_without_pillow_heif_a_heic_file_says_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    content = _encoded(Image.new("RGB", (16, 16)), "HEIF")
    monkeypatch.setattr(images, "formats", lambda: ("PNG", "JPEG"))
    with pytest.raises(UnreadableImage, match=r"pip install 'tuition\[heic\]'"):
        decode(content)


def test_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 15)
    with pytest.raises(UnreadableImage, match="4 x 4"):
        decode(_encoded(Image.new("RGB", (4, 4))))


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="a system of other devices")
def test_a_device_is_no_image_file() -> None:
    with pytest.raises(UnreadableImage, match="not a regular file"):
        read_image(Path("/dev/null"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a system without such files")
def test_a_file_that_is_longer_than_the_system_says_is_read_up_to_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = Path("/proc/self/status")
    assert path.stat().st_size == 0
    assert len(read_image(path)) > 100
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    with pytest.raises(UnreadableImage, match="larger than"):
        read_image(path)
