"""A view is the same pixels wherever and whenever it is made, and is sent without loss."""

import hashlib
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from client.data.domains import Example
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


@pytest.mark.parametrize("size", [(64, 48), (1, 1), (3, 200)])
def test_what_is_sent_is_what_the_student_sees(size: tuple[int, int]) -> None:
    content = _file(*size)
    for index in range(1, 6):
        view = View.of(DIGEST, index)
        assert (decode(view.encode(content)) == view.apply(decode(content))).all()
        assert view.encode(content) == view.encode(content)


def test_views_of_an_image_differ_and_follow_from_its_hash() -> None:
    content = _file(64, 64)
    files = {View.of(digest, index).encode(content) for digest in (DIGEST, "other") for index in range(5)}
    assert len(files) == 9  # the two views 0 are the same bytes


def test_the_parameters_are_pinned() -> None:
    """A change here would make bought views unusable, so it must not happen by accident."""
    view = View.of(DIGEST, 1)
    assert View(**{**json.loads(json.dumps(view.to_json())), "box": view.box}) == view
    assert [round(edge, 6) for edge in view.box] == [0.025754, 0.093646, 0.870082, 0.937974]


@settings(deadline=None)
@given(st.integers(1, 1000), st.text(alphabet="0123456789abcdef", min_size=64, max_size=64))
def test_a_crop_keeps_most_of_the_image(index: int, digest: str) -> None:
    view = View.of(digest, index)
    left, top, right, bottom = view.box
    assert 0 <= left < right <= 1 + 1e-9
    assert 0 <= top < bottom <= 1 + 1e-9
    assert (right - left) * (bottom - top) >= 0.7 - 1e-9
    assert all(0.7 <= factor <= 1.3 for factor in (view.brightness, view.contrast, view.saturation))


def test_a_view_of_an_example_is_an_example_with_bytes_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(_file(64, 48))
    original = Example(path, "photo", 0, hashlib.sha256(path.read_bytes()).hexdigest(), "cat")
    assert original.content() == path.read_bytes()
    view = original.seen_as(View.of(original.digest, 2))
    assert hashlib.sha256(view.content()).hexdigest() == view.digest != original.digest
    assert (view.label, view.domain, view.drawing) == (0, "photo", "cat")
    path.write_text("something else")
    with pytest.raises(UnreadableImage):
        view.content()
