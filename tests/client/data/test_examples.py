"""What was sent of an image is made again from its file and the digest."""

from pathlib import Path

import pytest
from PIL import Image

from client.data.examples import UNLABELLED, Example, read_files, sent_of
from client.data.file_memory import FileMemory
from client.data.images import UnreadableImage

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
    assert sent_of(plain.file, plain.digest) == plain.content() == plain.path.read_bytes()
    glyph = _saved(_GLYPH, tmp_path / "glyph.png")
    for example in (glyph, _saved(_COLOURS, tmp_path / "noise.gif")):
        assert sent_of(example.file, example.digest) == example.content() != example.path.read_bytes()


def test_a_file_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="No such file"):
        sent_of(str(tmp_path / "gone.png"), "0" * 64)
