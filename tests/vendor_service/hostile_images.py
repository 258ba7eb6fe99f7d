"""Image files that are small to send and dear to decode, of every format; benchmarks send them too.

Each builder makes one file. `BOMBS` has them all, at sizes that the vendor's standard limits let in where the
file alone does not tell that it is too much.
"""

import struct
import zlib
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from PIL import Image

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_START_OF_SCAN = b"\xff\xda"
_END_OF_IMAGE = b"\xff\xd9"


def jpeg_of_scans(scans: int, side: int = 1000) -> bytes:
    """A progressive JPEG of one colour whose last scan is there again and again, `scans` in all."""
    whole = saved(Image.new("RGB", (side, side), (200, 30, 60)), "JPEG", progressive=True)
    last = whole[whole.rindex(_START_OF_SCAN) : -2]
    head = whole[:-2]
    return head + last * (scans - head.count(_START_OF_SCAN)) + _END_OF_IMAGE


def large_progressive_jpeg(width: int = 7000, height: int = 7000, mode: str = "RGB") -> bytes:
    """A progressive JPEG, whose coefficients are kept at their full size however small it is decoded."""
    return saved(Image.new(mode, (width, height)), "JPEG", progressive=True)


def jpeg_with_thumbnail_scans(scans: int = 100) -> bytes:
    """An honest JPEG whose EXIF holds what looks like the starts of many scans: it is to be decoded."""
    honest = saved(Image.effect_noise((64, 48), 60).convert("RGB"), "JPEG")
    metadata = b"Exif\0\0" + _START_OF_SCAN * scans
    segment = b"\xff\xe1" + struct.pack(">H", len(metadata) + 2) + metadata
    return honest[:2] + segment + honest[2:]


def with_index(jpeg: bytes) -> bytes:
    """A JPEG with an index (MPF) of a second image, as many cameras write it: Pillow's format is MPO."""
    numbers = struct.pack("<4sLH", b"II*\0", 8, 2)
    numbers += struct.pack("<HHLL", 0xB001, 4, 1, 2)  # images
    numbers += struct.pack("<HHLLL", 0xB002, 7, 32, 38, 0)  # what is said of them follows, 16 bytes each
    index = b"MPF\0" + numbers + bytes(32)
    return jpeg[:2] + b"\xff\xe2" + struct.pack(">H", len(index) + 2) + index + jpeg[2:]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG, with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    width: int,
    height: int,
    chunks: Iterable[bytes],
    *,
    bits: int = 8,
    colour: int = 2,
    interlaced: bool = False,
) -> bytes:
    """A PNG that declares a size and holds whatever chunks it is given."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))
    return _PNG_SIGNATURE + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def png_of_zeros(
    width: int, height: int, *, bits: int = 8, colour: int = 2, interlaced: bool = False
) -> bytes:
    """A whole PNG of black pixels, which deflate to a thousandth."""
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    packer = zlib.compressobj(9)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    packed = []
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            row = bytes(1 + (columns * samples * bits + 7) // 8)
            packed += [packer.compress(row) for _ in range(rows)]
    content = b"".join([*packed, packer.flush()])
    return png(width, height, [png_chunk(b"IDAT", content)], bits=bits, colour=colour, interlaced=interlaced)


def jpeg_of_comments(comments: int) -> bytes:
    """A JPEG of a few pixels before which so many comments are to be read."""
    file = saved(Image.new("RGB", (8, 8)), "JPEG")
    return file[:2] + b"\xff\xfe\x00\x02" * comments + file[2:]


def png_of_texts(texts: int = 500_000) -> bytes:
    """A PNG of one pixel before which so many comments are to be read."""
    comments = [png_chunk(b"tEXt", b"k\0")] * texts
    return png(1, 1, [*comments, png_chunk(b"IDAT", zlib.compress(bytes(4)))])


def png_with_text_bomb(unpacked: int = 80_000_000) -> bytes:
    """A PNG of one pixel whose comment unpacks to so many bytes."""
    comment = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(unpacked), 9))
    return png(1, 1, [comment, png_chunk(b"IDAT", zlib.compress(bytes(4)))])


def png_with_profile_bomb(unpacked: int = 80_000_000) -> bytes:
    """A PNG of one pixel whose colour profile unpacks to so many bytes."""
    profile = png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(unpacked), 9))
    return png(1, 1, [profile, png_chunk(b"IDAT", zlib.compress(bytes(4)))])


def animated_png(frames: int = 200, side: int = 200) -> bytes:
    """A PNG of many frames."""
    return _animated("PNG", frames, side)


def large_webp(side: int = 7000, **options: Any) -> bytes:
    """A WebP of one colour."""
    return saved(Image.new("RGB", (side, side), (1, 2, 3)), "WEBP", method=0, **options)


def animated_webp(frames: int = 100, side: int = 1000) -> bytes:
    """A WebP of many frames."""
    return _animated("WEBP", frames, side, method=0, lossless=True, minimize_size=False)


def webp_with_profile(size: int = 10_000_000) -> bytes:
    """A WebP of a few pixels and a colour profile of so many bytes."""
    return saved(Image.new("RGB", (8, 8)), "WEBP", icc_profile=bytes(size))


def _animated(form: str, frames: int, side: int, **options: Any) -> bytes:
    shades = [Image.new("RGB", (side, side), (number % 256, 0, 0)) for number in range(frames)]
    return saved(shades[0], form, save_all=True, append_images=shades[1:], **options)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    """The file of an image, as Pillow writes it."""
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


# Where the passes of an interlaced PNG begin and how far apart their pixels are: left, top, across, down.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

BOMBS: dict[str, Callable[[], bytes]] = {
    "JPEG of 1,000 scans": lambda: jpeg_of_scans(1000, side=4000),
    "JPEG of 60 scans and 49 megapixels": lambda: jpeg_of_scans(60, side=7000),
    "progressive JPEG of 49 megapixels": large_progressive_jpeg,
    "progressive CMYK JPEG of 49 megapixels": lambda: large_progressive_jpeg(mode="CMYK"),
    "PNG of 2.5 gigapixels": lambda: png(50_000, 50_000, []),
    "PNG of 49 megapixels": lambda: png_of_zeros(7000, 7000),
    "PNG of 49 megapixels, RGBA": lambda: png_of_zeros(7000, 7000, colour=6),
    "PNG of 49 megapixels, 16 bit, interlaced": lambda: png_of_zeros(7000, 7000, bits=16, interlaced=True),
    "PNG of 500,000 comments": png_of_texts,
    "PNG with a comment that unpacks to 80 MB": png_with_text_bomb,
    "PNG with a profile that unpacks to 80 MB": png_with_profile_bomb,
    "PNG of 200 frames": animated_png,
    "WebP of 49 megapixels": large_webp,
    "WebP of 49 megapixels, lossless": lambda: large_webp(lossless=True),
    "WebP of 100 frames": animated_webp,
    "WebP with a profile of 10 MB": webp_with_profile,
}
