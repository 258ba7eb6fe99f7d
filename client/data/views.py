"""Deterministic views of an image in other styles: all follows from (image hash, view index)."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
from PIL import Image

from client.data.images import Pixels, decode, seen_otherwise

# What is encoded here has at most this shorter side: no CLIP of today sees more, and it would travel longer.
_SIDE = 384
# What the changes are, and how far each goes, is as in `client/learning/styles.py`; their chance is its own.
_CHANCE = 0.4
_STROKE = 1 / 64
_FEWEST_SQUARES, _MOST_SQUARES = 16, 48
_ONE = 1024
_NEAREST, _BY_AREA = Image.Resampling.NEAREST, Image.Resampling.BOX
_LINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class View:
    """The parameters of one view; equal parameters give equal pixels, on any machine with the same Pillow.

    The changes are made in this order. What they are set to here changes nothing.

    Attributes:
        index: 0 for the image itself; from 1 on, which of its further views.
        strokes: what is dark grows thicker or thinner.
        ink: light for dark, or the outlines of what is there in black on white.
        tone: the exponent of middle tones, and what black and white become (shares of white).
        mixture: how much of red, green and blue each channel becomes, one after the other, in 1/1024.
        squares: how many there are on the shorter side of a coarser view; 0 for one that is as fine as it is.
        smooth: whether these run into each other.
    """

    index: int
    strokes: Literal["as they are", "thicker", "thinner"] = "as they are"
    ink: Literal["as it is", "negative", "outlines"] = "as it is"
    tone: tuple[float, float, float] = (1.0, 0.0, 1.0)
    mixture: tuple[int, ...] = (_ONE, 0, 0, 0, _ONE, 0, 0, 0, _ONE)
    squares: int = 0
    smooth: bool = False

    @classmethod
    def of(cls, digest: str, index: int) -> "View":
        """The view that an image of this SHA-256 has at this index: changed in one way or in several."""
        if index == 0:
            return cls(0)
        rng = random.Random(f"style:{digest}:{index}")
        changes: dict[str, Any] = {}
        while not changes:
            if rng.random() < _CHANCE:
                changes["strokes"] = "thicker" if rng.random() < 0.5 else "thinner"
            if rng.random() < _CHANCE:
                changes["ink"] = "negative" if rng.random() < 0.5 else "outlines"
            if rng.random() < _CHANCE:
                changes["tone"] = (3 ** rng.uniform(-1, 1), rng.uniform(0, 0.3), rng.uniform(0.7, 1))
            if rng.random() < _CHANCE:
                changes["mixture"] = _mixture(rng)
            if rng.random() < _CHANCE:
                changes["squares"] = round(_MOST_SQUARES / rng.uniform(1, _MOST_SQUARES / _FEWEST_SQUARES))
                changes["smooth"] = rng.random() < 0.5
        return cls(index, **changes)

    def to_json(self) -> dict[str, Any]:
        """The parameters, to be stored beside what was bought."""
        return asdict(self)

    def apply(self, pixels: Pixels) -> Pixels:
        """The view's pixels (height, width, 3), from those of the image: what the student sees."""
        if self.index == 0:
            return pixels
        pixels = _reduced(pixels)
        if self.strokes != "as they are":
            pixels = _grown(pixels) if self.strokes == "thinner" else ~_grown(~pixels)
        if self.ink == "negative":
            pixels = ~pixels
        elif self.ink == "outlines":
            edges = _grown(pixels) - ~_grown(~pixels)
            pixels = np.repeat(~edges.max(axis=2, keepdims=True), 3, axis=2)
        pixels = _mixed(_toned(pixels, *self.tone), self.mixture)
        return _coarser(pixels, self.squares, smooth=self.smooth) if self.squares else pixels

    def encode(self, content: bytes) -> bytes:
        """What is sent for this view of an image file: a PNG of what the student sees.

        Where that is the image itself, it is the file's very bytes, unless they are of a format that vendors
        need not know, or whoever converts them to RGB and does no more would see something else (see
        `seen_otherwise`).

        Raises:
            UnreadableImage: the content is no image.
        """
        if self.index == 0:
            seen = seen_otherwise(content)
            return content if seen is None else encoded(seen)
        pixels = decode(content)
        changed = self.apply(pixels)
        return ORIGINAL.encode(content) if np.array_equal(changed, pixels) else encoded(changed)


ORIGINAL = View(0)


def encoded(pixels: Pixels) -> bytes:
    """A PNG of pixels (height, width, 3), of no more than `_SIDE` on the shorter side."""
    file = BytesIO()
    Image.fromarray(_reduced(pixels)).save(file, "PNG", compress_level=6)
    return file.getvalue()


def _mixture(rng: random.Random) -> tuple[int, ...]:
    """Each channel a mixture of all three, some of them negative; greys stay as they are."""
    shares: list[int] = []
    for _ in range(3):
        red, green, blue = (round(_ONE * rng.uniform(-1, 2)) for _ in range(3))
        third, rest = divmod(_ONE - red - green - blue, 3)
        shares += [red + third, green + third, blue + third + rest]
    return tuple(shares)


def _toned(pixels: Pixels, gamma: float, black: float, white: float) -> Pixels:
    levels = [round(255 * (black + (white - black) * (level / 255) ** gamma)) for level in range(256)]
    return np.array(levels, np.uint8)[pixels]


def _mixed(pixels: Pixels, mixture: Sequence[int]) -> Pixels:
    sums = pixels.astype(np.int32) @ np.array(mixture, np.int32).reshape(3, 3).T
    return ((sums + _ONE // 2) // _ONE).clip(0, 255).astype(np.uint8)


def _reduced(pixels: Pixels) -> Pixels:
    """The image with no more than `_SIDE` pixels on its shorter side."""
    height, width = pixels.shape[:2]
    excess = min(height, width) / _SIDE
    if excess <= 1:
        return pixels
    size = (round(width / excess), round(height / excess))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _coarser(pixels: Pixels, squares: int, *, smooth: bool) -> Pixels:
    height, width = pixels.shape[:2]
    factor = min(height, width) / squares
    if factor <= 1:
        return pixels
    size = max(1, round(width / factor)), max(1, round(height / factor))
    there, back = (_BY_AREA, _LINEAR) if smooth else (_NEAREST, _NEAREST)
    return np.asarray(Image.fromarray(pixels).resize(size, there).resize((width, height), back))


def _grown(pixels: Pixels) -> Pixels:
    """The lightest of each pixel's surroundings."""
    for _ in range(max(1, round(_STROKE * min(pixels.shape[:2])))):
        for _ in range(2):
            padded = np.pad(pixels, ((1, 1), (0, 0), (0, 0)), mode="edge")
            pixels = np.maximum(np.maximum(padded[:-2], pixels), padded[2:]).swapaxes(0, 1)
    return pixels
