"""A view is the same pixels wherever and whenever it is made, and is sent without loss."""

import hashlib
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from client.data.examples import Example
from client.data.images import UnreadableImage, decode
from client.data.views import View


def _file(width: int, height: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


DIGEST = hashlib.sha256(b"an image").hexdigest()


def test_the_first_view_is_the_image_itself() -> None:
    content = _file(20, 10)
    view = View.of(DIGEST, 0)
    assert view.encode(content) is content
    assert (view.apply(decode(content)) == decode(content)).all()


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
    seen, sent = decode(content), View(0).encode(content)
    with Image.open(BytesIO(sent)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert (np.asarray(image) == seen).all()
        assert not image.getexif()
    assert View(1).encode(content) == sent  # where nothing is changed, it is not another query
    assert View(0).encode(sent) is sent


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
    assert View(0).encode(content) is content


@pytest.mark.parametrize("size", [(64, 48), (1, 1), (3, 200)])
def test_what_is_sent_is_what_the_student_sees(size: tuple[int, int]) -> None:
    content = _file(*size)
    for index in range(1, 6):
        view = View.of(DIGEST, index)
        assert (decode(view.encode(content)) == view.apply(decode(content))).all()
        assert view.encode(content) == view.encode(content)


def test_views_differ_and_follow_from_hash_and_index() -> None:
    content = _file(64, 64)
    files = {View.of(str(digest), index).encode(content) for digest in range(10) for index in range(5)}
    assert len(files) > 35  # ten times view 0; and chance may change two in the same single way


def test_a_change_that_changes_nothing_is_not_another_query() -> None:
    file = BytesIO()
    Image.fromarray(np.repeat(decode(_file(30, 30))[:, :, :1], 3, axis=2)).save(file, "WEBP", lossless=True)
    only_colours = View(1, mixture=(0, 0, 1024, 0, 1024, 0, 1024, 0, 0))
    assert only_colours.encode(file.getvalue()) == file.getvalue()
    assert only_colours.encode(_file(30, 30)) != _file(30, 30)


def test_parameters_and_pixels_are_pinned() -> None:
    """A change here would make bought views unusable, so it must not happen by accident."""
    view = View.of(DIGEST, 1)
    noted = json.loads(json.dumps(view.to_json()))
    pixels = decode(_file(70, 50))
    assert (View(**noted).apply(pixels) == view.apply(pixels)).all()
    assert view == View(1, strokes="thinner", tone=view.tone, mixture=view.mixture)
    views = [replace(View.of(DIGEST, index), squares=0) for index in range(1, 20)]  # Pillow resizes
    changed = hashlib.sha256(b"".join(view.apply(pixels).tobytes() for view in views))
    assert changed.hexdigest()[:16] == "20bea52fa75c886c"


@settings(max_examples=50)
@given(st.integers(1, 1000), st.text(alphabet="0123456789abcdef", min_size=64, max_size=64))
def test_every_view_is_changed_in_some_way_and_leaves_greys_grey(index: int, digest: str) -> None:
    view = View.of(digest, index)
    assert replace(view, index=0) != View(0)
    grey = np.repeat(decode(_file(40, 30))[:, :, :1], 3, axis=2)
    changed = view.apply(grey)
    assert changed.shape == grey.shape
    assert (changed == changed[:, :, :1]).all()


def test_each_change_is_what_its_name_says() -> None:
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    drawn = white.copy()
    drawn[20:40, 20:40] = 0

    def dark(**changes: Any) -> int:
        return int((View(1, **changes).apply(drawn)[:, :, 0] < 128).sum())

    assert (dark(), dark(strokes="thicker"), dark(strokes="thinner")) == (400, 22 * 22, 18 * 18)
    assert dark(ink="negative") == 64 * 64 - 400
    assert dark(ink="outlines") == 22 * 22 - 18 * 18
    assert (View(1, tone=(2.0, 0.2, 0.8)).apply(black) == 51).all()
    assert (View(1, tone=(2.0, 0.2, 0.8)).apply(white) == 204).all()
    assert View(1, tone=(2.0, 0.0, 1.0)).apply(np.full((1, 1, 3), 128, np.uint8)).max() == 64
    swapped = View(1, mixture=(0, 0, 1024, 0, 1024, 0, 1024, 0, 0)).apply(decode(_file(8, 8)))
    assert (swapped == decode(_file(8, 8))[:, :, ::-1]).all()
    coarse = View(1, squares=16).apply(decode(_file(64, 64)))
    assert (coarse == coarse[::4, ::4].repeat(4, 0).repeat(4, 1)).all()
    assert (View(1, squares=16, smooth=True).apply(decode(_file(64, 64))) != coarse).any()


def test_no_side_is_sent_that_a_model_would_only_reduce() -> None:
    content = _file(1000, 600)
    assert View.of(DIGEST, 3).apply(decode(content)).shape == (384, 640, 3)
    turned = _saved(Image.fromarray(decode(content)), exif=_turned(8))
    assert decode(View(0).encode(turned)).shape == (640, 384, 3)


def test_a_view_of_an_example_is_an_example_with_bytes_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(_file(64, 48))
    original = Example(str(path), "photo", 0, hashlib.sha256(path.read_bytes()).hexdigest(), "cat", 48)
    assert original.content() == path.read_bytes()
    view = original.seen_as(View.of(original.digest, 2))
    assert hashlib.sha256(view.content()).hexdigest() == view.digest != original.digest
    assert (view.label, view.domain, view.drawing) == (0, "photo", "cat")
    path.write_text("something else")
    with pytest.raises(UnreadableImage):
        view.content()
