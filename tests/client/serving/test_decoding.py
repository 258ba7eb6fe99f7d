"""Decoding for a student: what its own preprocessing adds to the vendor's bounds (tests/shared/processes)."""

import asyncio
import struct
from io import BytesIO
from unittest.mock import patch

import httpx
import pytest
from PIL import Image

from client.data.images import UnreadableImage, decode
from client.data.sending import as_sent
from client.serving import decoding
from client.serving.decoding import ImageDecoder, Squeezing
from client.serving.metrics import Metrics
from shared.errors import APIError
from shared.images.limits import ImageLimits
from shared.processes import fork_server
from tests.client.serving.test_serve import ask, error_of, picture
from tests.support.forking import launch_decoding
from tests.vendor_service.hostile_images import png_chunk

SIDE = 8


def _line(length: int) -> bytes:
    """The head of a PNG of one pixel times so many."""
    header = struct.pack(">IIBBBBB", 1, length, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
    )


def test_a_line_of_pixels_is_refused_by_its_head(http: httpx.Client) -> None:
    assert error_of(ask(http, _line(32_769))) == ("image_too_large", "inputs.0.image")
    with pytest.raises(UnreadableImage, match="too many"):
        decode(_line(32_769))
    assert http.get("/v1/student").json()["limits"]["max_image_side"] == 32_768
    long = BytesIO()
    Image.new("L", (32_768, 1)).save(long, "PNG")
    assert ask(http, long.getvalue()).status_code == 200


class _SlowHead(Squeezing):
    """What a head does that takes long to read."""

    def draft_size(self, width: int, height: int) -> tuple[int, int]:
        while width == 40:
            pass
        return super().draft_size(width, height)


def _with(squeezing: type[Squeezing], *files: bytes) -> list[str]:
    """What became of files, and of what a vendor is sent of them."""

    async def do() -> list[str]:
        decoder = ImageDecoder(SIDE, ImageLimits(2**20, 10**6), 2, Metrics(), sends=True)
        await asyncio.to_thread(decoder.start)
        try:
            decoded = await decoder.decode("a", files)
            sent = [await decoder.as_sent("a", file) for file in files]
        finally:
            await asyncio.to_thread(decoder.close)
        assert all(mine is None or mine == as_sent(file) for mine, file in zip(sent, files, strict=True))
        told = [each.code if isinstance(each, APIError) else str(each.shape) for each in decoded]
        return [*told, *("nothing" if each is None else "sent" for each in sent)]

    with (
        patch.object(fork_server, "launch", launch_decoding),
        patch.object(decoding, "Squeezing", squeezing),
    ):
        return asyncio.run(do())


def test_a_head_that_takes_long_ends_its_process() -> None:
    assert _with(_SlowHead, picture(), picture(side=50))[:2] == ["image_too_large", "(8, 8, 3)"]


def test_what_a_vendor_is_sent_is_made_in_a_process_too() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    files = [
        picture(),
        picture(1, mode="RGBA"),
        picture(2, "JPEG", exif=turned),
        picture(3, "TIFF"),
        b"no image",
    ]
    assert _with(Squeezing, *files) == ["(8, 8, 3)"] * 4 + ["invalid_image"] + ["sent"] * 4 + ["nothing"]
