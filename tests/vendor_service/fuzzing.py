"""Requests that nobody means well: right once, then mutated. A seed gives each of them."""

import base64
import json
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple

import httpx
from PIL import Image

from tests.support.photograph import photograph

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXTREME = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xff\xff")
_NASTY: tuple[Any, ...] = (
    *(None, True, 0, -1, 10**400, float("nan"), [], {}, "", "=", "%%%%", "\0", "\ud800", "x" * 20_000),
    *("data:image/png;base64,", "data:,", "http://127.0.0.1/", [[[[]]]], {"text": {"text": "a"}}),
)
_BOUNDARY = "fuzz"


class Request(NamedTuple):
    """What is posted, and where to."""

    path: str
    content_type: str
    body: bytes


def request(seed: int) -> Request:
    """A request with mutated images, or with sound ones in a mutated body, of each kind that is taken."""
    rng = random.Random(seed)
    mutate_images = rng.random() < 0.6
    images = [rng.choice(_files()) for _ in range(rng.randint(1, 3))]
    if mutate_images:
        images = [_mutated_image(rng, each) for each in images]
    kind = rng.choice((_json, _openai, _form))
    asked = kind(rng, images, mutate=not mutate_images)
    if not mutate_images and rng.random() < 0.5:
        return asked._replace(body=_mutated(rng, asked.body))
    return asked


def _json(rng: random.Random, images: list[bytes], *, mutate: bool) -> Request:
    inputs = [{"image": base64.b64encode(each).decode()} for each in images]
    body = {"inputs": [*inputs, {"text": "a cat"}], "on_error": rng.choice(["fail", "skip"])}
    return _as_json(rng, "/embed", body, mutate=mutate)


def _openai(rng: random.Random, images: list[bytes], *, mutate: bool) -> Request:
    uris = [f"data:image/png;base64,{base64.b64encode(each).decode()}" for each in images]
    body = {"model": "icon-clip", "input": [*uris, "a cat"], "encoding_format": "base64"}
    return _as_json(rng, "/v1/embeddings", body, mutate=mutate)


def _form(rng: random.Random, images: list[bytes], *, mutate: bool) -> Request:
    parts = [("image", f"{number}.png", each) for number, each in enumerate(images)]
    head = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="{{}}"; filename="{{}}"\r\n\r\n'
    body = b"".join(head.format(name, file).encode() + each + b"\r\n" for name, file, each in parts)
    body += f"--{_BOUNDARY}--\r\n".encode()
    if mutate:
        body = _mutated(rng, body)
    return Request("/embed", f"multipart/form-data; boundary={_BOUNDARY}", body)


def _as_json(rng: random.Random, path: str, body: Any, *, mutate: bool) -> Request:
    if mutate:
        _put_somewhere(rng, body, rng.choice(_NASTY))
    return Request(path, "application/json", json.dumps(body).encode())


def _put_somewhere(rng: random.Random, node: Any, value: Any) -> None:
    """Put a value where another was, however deep."""
    place = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
    if isinstance(node[place], dict | list) and node[place] and rng.random() < 0.7:
        _put_somewhere(rng, node[place], value)
    else:
        node[place] = value


@cache
def _files() -> list[bytes]:
    picture = photograph(90, 70)
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("PNG", "RGB", {}),
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "RGBA", {"optimize": True}),
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True, "exif": b"Exif\0\0MM\0*" + bytes(30)}),
        ("JPEG", "CMYK", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("WEBP", "RGB", {"save_all": True, "append_images": [Image.new("RGB", (90, 70), "red")]}),
        ("GIF", "P", {}),
    ]
    files = []
    for form, mode, options in kinds:
        buffer = BytesIO()
        picture.convert(mode).save(buffer, form, **options)
        files.append(buffer.getvalue())
    return files


def _mutated_image(rng: random.Random, data: bytes) -> bytes:
    changed = _mutated(rng, data)
    # With its checksums right, a PNG is believed further.
    return _checked(changed) if changed.startswith(_SIGNATURE) and rng.random() < 0.6 else changed


def _mutated(rng: random.Random, data: bytes) -> bytes:
    return rng.choice(_MUTATIONS)(rng, data)


def _flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _leave_out(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 40) :]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start : start + rng.randint(1, 200)] * rng.randint(2, 20) + data[start:]


def _splice(rng: random.Random, data: bytes) -> bytes:
    """The header of another file before the rest of this one."""
    size = rng.randint(1, 60)
    return rng.choice(_files())[:size] + data[size:]


def _exaggerate(rng: random.Random, data: bytes) -> bytes:
    """A size or a length near the beginning becomes extreme."""
    place = rng.randrange(min(len(data), 200))
    value = rng.choice(_EXTREME)[: rng.choice((2, 4))]
    return data[:place] + value + data[place + len(value) :]


_MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flip,
    _cut,
    _leave_out,
    _repeat,
    _splice,
    _exaggerate,
)


def _checked(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums that they ought to have."""
    whole, place = bytearray(data), len(_SIGNATURE)
    while place + 12 <= len(whole):
        end = place + 8 + struct.unpack_from(">I", whole, place)[0]
        if end + 4 > len(whole):
            break
        struct.pack_into(">I", whole, end, zlib.crc32(whole[place + 4 : end]))
        place = end + 4
    return bytes(whole)


def send(http: httpx.Client, api_key: str, asked: Request) -> httpx.Response:
    """Post it."""
    headers = {"authorization": f"Bearer {api_key}", "content-type": asked.content_type}
    return http.post(asked.path, content=asked.body, headers=headers)
