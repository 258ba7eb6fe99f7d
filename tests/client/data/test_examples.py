"""What was sent for an image is made again from what its query is called and its digest."""

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from client.data.examples import UNLABELLED, Example, read_files, sent_of
from client.data.file_memory import FileMemory
from client.data.images import UnreadableImage
from client.data.views import View

_NOISE = Image.effect_noise((40, 30), 90)
_COLOURS = Image.merge("RGB", [_NOISE, _NOISE.rotate(180), _NOISE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
_GLYPH = Image.new("RGBA", (9, 5), (0, 0, 0, 0))
_GLYPH.paste((200, 30, 60, 255), (2, 1, 6, 3))


def _example(path: Path) -> Example:
    (facts,) = read_files([path], FileMemory(None))
    return Example(str(path), "photo", UNLABELLED, facts.digest, facts.file_digest, facts.side)


def _saved(image: Image.Image, path: Path) -> Example:
    image.save(path, path.suffix[1:])
    return _example(path)


def test_what_was_sent_is_the_file_or_what_was_made_of_it(tmp_path: Path) -> None:
    plain = _saved(_COLOURS, tmp_path / "plain.png")
    assert sent_of(plain.name, plain.digest) == plain.content() == plain.path.read_bytes()
    glyph = _saved(_GLYPH, tmp_path / "glyph.png")
    for example in (glyph, _saved(_COLOURS, tmp_path / "noise.gif")):
        assert sent_of(example.name, example.digest) == example.content() != example.path.read_bytes()


@pytest.mark.parametrize("name", ["plain.png", "glyph.png", "noise.gif", "plain.png (view 1).png"])
def test_further_views_are_made_again(tmp_path: Path, name: str) -> None:
    original = _saved(_GLYPH if name.startswith("glyph") else _COLOURS, tmp_path / name)
    views = [original.seen_as(View.of(original.digest, index)) for index in (1, 2, 12)]
    assert views[2].name == f"{original.file} (view 12)"
    assert len({view.digest for view in (original, *views)}) > 2
    for view in views:  # of those that are as coarse as a small glyph is, one is the glyph itself
        sent = sent_of(view.name, view.digest)
        assert sent == view.content()
        assert hashlib.sha256(sent).hexdigest() == view.digest


def test_a_view_that_changes_nothing_is_the_file(tmp_path: Path) -> None:
    grey = _saved(_NOISE, tmp_path / "grey.png")
    views = [grey.seen_as(View.of(grey.digest, index)) for index in range(1, 30)]
    assert any(view.digest == grey.digest for view in views)
    assert all(sent_of(view.name, view.digest) == view.content() for view in views)


def test_a_file_may_be_called_as_a_view_is(tmp_path: Path) -> None:
    _saved(_COLOURS, tmp_path / "x.png")
    path = tmp_path / "x.png (view 1)"
    _GLYPH.save(path, "PNG")
    example = _example(path)
    assert sent_of(example.name, example.digest) == example.content() != path.read_bytes()
    first = example.seen_as(View.of(example.digest, 1))
    assert sent_of(first.name, first.digest) == first.content()


@pytest.mark.parametrize("name", ["gone.png", "gone.png (view 1)", f"{'x' * 250} (view 1)"])
def test_a_file_that_is_gone_is_said_to_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadableImage, match="No such file"):
        sent_of(str(tmp_path / name), "0" * 64)
