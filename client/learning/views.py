"""Random views by a function of the user's own."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from client.errors import ClientError, UsageError
from client.plugins import Plugins, named, of_others

TRANSFORMS = Plugins("transform", option="--transform", group="tuition.transforms")
_SEEDS = 2**32


def transform_name(given: Any) -> str:  # noqa: ANN401 (a name, or a function)
    """The name of what stands in options: a function there is registered.

    Raises:
        UsageError: it stands for no function.
    """
    name = named(given, TRANSFORMS)
    transform_of(name)
    return name


def transform_of(name: str) -> Callable[[Tensor], Tensor]:
    """The function that a name stands for.

    Raises:
        UsageError: there is none.
    """
    found: Any = TRANSFORMS.load(name)
    if isinstance(found, type):  # what makes one
        with of_others(f"The transform {name}"):
            found = found()
    if not callable(found):
        raise UsageError(f"The transform {name} is of type {type(found).__name__}: it has to be a function.")
    return cast(Callable[[Tensor], Tensor], found)


def own_views(
    view: Callable[[Tensor], Tensor], pixels: Tensor, places: Sequence[int], *, seed: int, size: int
) -> Tensor:
    """A view of each image, float32 of shape (n, 3, size, size), values from 0 to 255, on the CPU.

    What the view draws by the global generators of PyTorch, NumPy and Python is fixed by the seed and the
    image's place; afterwards they stand where they stood.

    Args:
        view: takes an image, uint8 of shape (3, side, side), and gives one of any height and width.
        pixels: uint8 of shape (n, side, side, 3), on the CPU.
        places: of each image in its batch.
        seed: of the batch.
        size: of the views, to which others are resized.

    Raises:
        ClientError: the view raises, or gives no such image.
    """
    seen = torch.empty(len(pixels), 3, size, size)
    with _drawing() as draw_by:
        for row, place in enumerate(places):
            draw_by((seed * 1_000_003 + place) % _SEEDS)
            seen[row] = _one(view, pixels[row].permute(2, 0, 1), size)
    _require_pixels(seen, pixels)
    return seen


def _one(view: Callable[[Tensor], Tensor], image: Tensor, size: int) -> Tensor:
    with of_others("The transform"):
        given = view(image)
    if not isinstance(given, Tensor) or given.ndim != 3 or len(given) != 3:
        what = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise ClientError(
            f"The transform gives {what} for an image: it has to give a tensor of shape (3, height, width)."
        )
    values = given.detach().to("cpu", torch.float32)
    if values.shape[1:] == (size, size):
        return values
    return functional.interpolate(values[None], (size, size), mode="bilinear", antialias=True)[0]


def _require_pixels(seen: Tensor, pixels: Tensor) -> None:
    """Refuse views that are on another scale than their images.

    Raises:
        ClientError: they are.
    """
    if not len(seen):
        return
    lowest, highest = float(seen.min()), float(seen.max())
    if not (lowest >= -0.5 and highest <= 255.5):
        raise ClientError(
            f"The transform gives values from {lowest:.3g} to {highest:.3g}: they have to be from 0 to 255, "
            "for the student scales and normalises by itself."
        )
    if highest <= 1 < int(pixels.max()):
        raise ClientError(
            "The transform gives values from 0 to 1: they have to be from 0 to 255, as those that it takes "
            "are. Leave out what scales them (ToTensor, or ToDtype with scale=True)."
        )


@contextmanager
def _drawing() -> Iterator[Callable[[int], None]]:
    """Seeds the global generators of PyTorch's CPU, NumPy and Python; in the end they are as they were."""
    before = torch.random.get_rng_state(), np.random.get_state(), random.getstate()

    def seed(number: int) -> None:
        torch.default_generator.manual_seed(number)
        np.random.seed(number)
        random.seed(number)

    try:
        yield seed
    finally:
        torch.random.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
