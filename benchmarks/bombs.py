"""What is small to send and expensive to take: images, texts and bodies that nobody means well.

They are built before anything is measured, so that who sends them needs next to no processor.
"""

import struct
import zlib
from io import BytesIO
from itertools import count

from PIL import Image

from benchmarks import load

# The most pixels that a vendor takes of one image by default: 50 million.
_WIDTH, _HEIGHT = 8000, 6250
_MIB = 2**20
_BOUNDARY = "a-boundary"
_FORM = f"multipart/form-data; boundary={_BOUNDARY}"

_PNG = b"\x89PNG\r\n\x1a\n"
_COLOUR_BYTES = 3
# Adam7: where each pass begins, and how far apart its pixels are, across and down.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def many_scans(scans: int) -> bytes:
    """A progressive JPEG of 50 million pixels of one grey, whose last scan comes again and again."""
    buffer = BytesIO()
    Image.new("L", (_WIDTH, _HEIGHT), 128).save(buffer, "JPEG", progressive=True)
    file = buffer.getvalue()
    last = file.rindex(b"\xff\xda")
    return file[:last] + file[last:-2] * scans + b"\xff\xd9"


def flat_png(*, interlaced: bool = False) -> bytes:
    """A PNG of 50 million pixels of one colour, in some hundred kilobytes."""
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    squeezed = zlib.compressobj(9)
    data = b""
    for left, top, across, down in passes:
        width, height = -(-(_WIDTH - left) // across), -(-(_HEIGHT - top) // down)
        row = bytes(1 + width * _COLOUR_BYTES)
        data += b"".join(squeezed.compress(row) for _ in range(height))
    data += squeezed.flush()
    return _PNG + _header(_WIDTH, _HEIGHT, interlaced) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def heavy_chunks() -> bytes:
    """A tiny PNG with a colour profile and fifty texts, each of which inflates to nearly a mebibyte."""
    blown_up = zlib.compress(bytes(_MIB - 1024), 9)
    profile = _chunk(b"iCCP", b"profile\0\0" + blown_up)
    texts = b"".join(_chunk(b"zTXt", b"note%d\0\0" % number + blown_up) for number in range(50))
    pixels = _chunk(b"IDAT", zlib.compress(bytes(4 * 13)))
    return _PNG + _header(4, 4, interlaced=False) + profile + texts + pixels + _chunk(b"IEND", b"")


def flat_webp() -> bytes:
    """A lossless WebP of 50 million pixels of one colour."""
    return _webp(Image.new("RGB", (_WIDTH, _HEIGHT), (200, 30, 30)))


def animated_webp(frames: int) -> bytes:
    """An animation of so many frames, each of 16 million pixels."""
    buffer = BytesIO()
    colours = [Image.new("RGB", (4000, 4000), (shade, 60, 60)) for shade in (20, 220)]
    colours[0].save(buffer, "WEBP", save_all=True, append_images=colours[1:], lossless=True, method=0)
    file = buffer.getvalue()
    first = file.index(b"ANMF")
    body = file[8:first] + file[first:] * (frames // 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def padded(file: bytes, size: int) -> bytes:
    """The same image, whose file has so many bytes: decoders leave alone what follows its end."""
    return file + bytes(max(0, size - len(file)))


def endless_word(number: int) -> str:
    """A text of 10,000 letters without a space, another one for each number."""
    word = f"{number}qzjxkvbpygfwmucldrhsnioate"
    return (word * (10_000 // len(word) + 1))[:10_000]


def unknown_keys(size: int) -> bytes:
    """A JSON object of nothing but keys that no request has."""
    keys: list[bytes] = []
    length = 0
    for number in count():
        if length >= size:
            break
        keys.append(b'"%x":0' % number)
        length += len(keys[-1]) + 1
    return b"{" + b",".join(keys) + b"}"


def empty_texts(size: int) -> bytes:
    """A body of OpenAI's shape that asks for as many empty texts as fit."""
    return b'{"model":"icon-clip","input":[' + b'"",' * (size // 3) + b'""]}'


def nested_lists(size: int) -> bytes:
    """JSON that is lists in lists, as many lists side by side, each 100 deep, as fit."""
    deep = b"[" * 100 + b"]" * 100
    return b'{"inputs":[' + (deep + b",") * (size // (len(deep) + 1)) + b"[]]}"


def tiny_parts(size: int) -> tuple[bytes, str]:
    """A form of hundreds of thousands of empty fields, and its content type."""
    part = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="text"\r\n\r\n\r\n'.encode()
    return part * (size // len(part)) + f"--{_BOUNDARY}--\r\n".encode(), _FORM


def boundary_noise(size: int) -> tuple[bytes, str]:
    """A form whose only file is made of beginnings of the boundary, and its content type."""
    head = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="image"; filename="x"\r\n\r\n'.encode()
    noise = f"\r\n--{_BOUNDARY[:-1]}".encode()
    return head + noise * (size // len(noise)) + f"\r\n--{_BOUNDARY}--\r\n".encode(), _FORM


def embed(key: str, body: bytes, content_type: str, path: str = "/embed", **headers: str) -> bytes:
    """A whole request that asks for embeddings as raw rows."""
    return load.request(
        path,
        body,
        authorization=f"Bearer {key}",
        content_type=content_type,
        accept="application/octet-stream",
        **headers,
    )


def _webp(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "WEBP", lossless=True, quality=0, method=0)
    return buffer.getvalue()


def _header(width: int, height: int, interlaced: bool) -> bytes:
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
