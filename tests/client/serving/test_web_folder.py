"""`client export --web` in a real browser: the page answers as `client predict` does, and asks nobody."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from playwright.sync_api import Browser, Page, expect

import client
from client.data.images import decode_square
from tests.client.serving.conftest import SIDE
from tests.client.serving.test_page import WIDTHS, choose, drop, watched
from tests.client.serving.test_serve import picture
from tests.client.toy import CLASSES
from tests.support.static_server import static_server

# Before Pillow 13 the height of a tall image was never the first to be squeezed.
_ROUNDING = 0 if int(PIL.__version__.split(".")[0]) >= 13 else 1
_FILE = "const file = new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], 'picture');"
_PIXELS = f"""async ([content, side]) => {{
  {_FILE}
  const {{ decodeSquare }} = await import(new URL("assets/pixels.js", document.baseURI).href);
  return [...await decodeSquare(file, side)];
}}"""
_ANSWER = f"""async (content) => {{
  {_FILE}
  const {{ classify }} = await import(new URL("assets/browser.js", document.baseURI).href);
  return await classify([file]);
}}"""


@pytest.fixture(scope="session")
def site(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder, somewhere below what a server of static files serves; and its address."""
    root = tmp_path_factory.mktemp("static")
    folder = root / "some where" / "icons"
    folder.parent.mkdir()
    client.export(run / "student.onnx", folder, kind="web")
    with static_server(root) as address:
        yield folder, f"{address}some%20where/icons/"


@pytest.fixture(scope="module")
def page(browser: Browser, site: tuple[Path, str]) -> Iterator[Page]:
    """The page, which may ask for nothing outside its folder, and is ready."""
    with watched(browser, site[1]) as page:
        expect(page.locator("#status")).to_have_text("Ready.")
        yield page


def _drawing(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Noise over gradients, so that no two rows, columns or channels are alike; alpha as well."""
    rng = np.random.default_rng(width + height)
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    across = np.linspace(0, 255, width)[None, :, None] * np.linspace(1, 0.3, channels)
    down = np.linspace(0, 1, height)[:, None, None]
    values = across * down + rng.integers(0, 80, (height, width, channels))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)[..., 0 if channels == 1 else slice(None)])


def _saved(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _saved(_drawing(90, 60), exif=exif)


def _with_profile() -> bytes:
    """With a colour profile in which red and blue have changed places, which Pillow leaves alone."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"----", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"----", b"bXYZ", 1)
    return _saved(_drawing(50, 50), icc_profile=profile)


def _with_gamma() -> bytes:
    chunk = b"gAMA" + (100_000).to_bytes(4, "big")
    chunk = (4).to_bytes(4, "big") + chunk + crc32(chunk).to_bytes(4, "big")
    content = _saved(_drawing(50, 50))
    return content[:33] + chunk + content[33:]  # after the first chunk, which tells the size


EXACT: dict[str, Callable[[], bytes]] = {
    "smaller": lambda: _saved(_drawing(20, 13)),
    "as it is": lambda: _saved(_drawing(SIDE, SIDE)),
    "wide": lambda: _saved(_drawing(97, 41)),
    "tall": lambda: _saved(_drawing(SIDE, 300)),
    "reduced": lambda: _saved(_drawing(230, 331)),
    "reduced by a power of two": lambda: _saved(_drawing(400, 200)),
    "in several bands": lambda: _saved(_drawing(300, 2500)),
    "one pixel": lambda: _saved(_drawing(1, 1)),
    "upright": lambda: _saved(_drawing(60, 90)),
    "a line": lambda: _saved(_drawing(1000, 1)),
    "grey": lambda: _saved(_drawing(70, 70, "L")),
    "palette": lambda: _saved(_drawing(70, 70).quantize(50)),
    "gif": lambda: _saved(_drawing(70, 70).quantize(50), "GIF"),
    "bmp": lambda: _saved(_drawing(70, 70), "BMP"),
    "webp": lambda: _saved(_drawing(70, 70), "WEBP", lossless=True),
    "colour profile": _with_profile,
    "gamma": _with_gamma,
    **{f"turned {number}": partial(_turned, number) for number in range(1, 9)},
}
NEAR: dict[str, tuple[Callable[[], bytes], float]] = {
    "translucent": (lambda: _saved(_drawing(70, 70, "RGBA")), 1),
    "translucent grey": (lambda: _saved(_drawing(70, 70, "LA")), 1),
    "jpeg": (lambda: _saved(_drawing(60, 60), "JPEG", quality=95), 2),
    "large jpeg": (lambda: _saved(_drawing(900, 700), "JPEG", quality=95), 8),
}


def _answer(page: Page, content: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = page.evaluate(_ANSWER, base64.b64encode(content).decode())
    return answer


def _pixels(page: Page, content: bytes, side: int) -> NDArray[np.int_]:
    found = page.evaluate(_PIXELS, [base64.b64encode(content).decode(), side])
    return np.array(found).reshape(side, side, 3)


@pytest.mark.parametrize("name", EXACT)
def test_a_student_sees_the_pixels_that_pillow_makes(page: Page, name: str) -> None:
    content = EXACT[name]()
    difference = _pixels(page, content, SIDE) - decode_square(content, SIDE)[0].astype(int)
    assert np.abs(difference).max() <= _ROUNDING


@pytest.mark.parametrize("name", NEAR)
def test_where_decoders_round_otherwise_it_sees_nearly_the_same(page: Page, name: str) -> None:
    make, most = NEAR[name]
    content = make()
    difference = _pixels(page, content, SIDE) - decode_square(content, SIDE)[0].astype(int)
    assert np.abs(difference).max() <= most
    assert np.abs(difference).mean() <= 0.3


@pytest.mark.parametrize("name", [*EXACT, *NEAR])
def test_its_answers_are_those_of_client_predict(page: Page, run: Path, tmp_path: Path, name: str) -> None:
    make, tolerance = NEAR.get(name, (EXACT.get(name), 0))
    assert make is not None
    file = tmp_path / "file"
    file.write_bytes(make())
    found = client.load_student(run / "student.onnx").predict(file)
    (expected,) = found.classes.values()
    answer = _answer(page, file.read_bytes())
    assert answer["errors"] == []
    (result,) = answer["results"]
    assert (result["class"], result["answered_by"]) == (next(iter(expected)), "student")
    said = {each["class"]: each["confidence"] for each in result["top"]}
    assert said == pytest.approx(expected, abs=1e-2 if tolerance > 1 else 1e-3)
