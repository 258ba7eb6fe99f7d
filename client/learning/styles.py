"""Changes of an image's style that leave what it shows: the same thing drawn, printed or lit otherwise.

A student that has seen its images in styles which their domains do not have is less bound to those domains.
Each change has its own chance, and is computed for those images alone that it falls on.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# At most so many times coarser than its side a view becomes: that leaves 16 squares a side.
_COARSEST = 1 / 16
# A stroke is this share of a view's side thicker or thinner, each way.
_STROKE = 1 / 64
# Numbers drawn for each change: whether it falls on an image, and how it then goes.
_DRAWS = 10


def changed_styles(images: Tensor, draws: Tensor, *, chance: float) -> Tensor:
    """Images, each changed in none, one or several ways.

    Args:
        images: values from 0 to 255, shape (n, 3, size, size); may be written to.
        draws: uniform numbers, shape (n, STYLE_DRAWS), on the CPU.
        chance: of each change.
    """
    for change, numbers in zip(_CHANGES, draws.chunk(len(_CHANGES), dim=1), strict=True):
        rows = torch.nonzero(numbers[:, 0] < chance).flatten()
        if len(rows):
            on_device = rows.to(images.device)
            images[on_device] = change(images[on_device], numbers[rows, 1:].to(images.device))
    return images


def _strokes(images: Tensor, draws: Tensor) -> Tensor:
    """What is dark grows thicker, or thinner."""
    sign = torch.where(_each(draws[:, 0]) < 0.5, -1.0, 1.0)
    return sign * _grown(sign * images)


def _ink(images: Tensor, draws: Tensor) -> Tensor:
    """Light for dark; or the outlines of what is there, drawn in black on white."""
    outlines = 255 - (_grown(images) + _grown(-images)).amax(1, keepdim=True)
    return torch.where(_each(draws[:, 0]) < 0.5, 255 - images, outlines)


def _tone(images: Tensor, draws: Tensor) -> Tensor:
    """Middle tones darker or lighter (a gamma from 1/3 to 3), black and white nearer to each other."""
    gamma = 3 ** (2 * _each(draws[:, 0]) - 1)
    black, white = 0.3 * _each(draws[:, 1]), 1 - 0.3 * _each(draws[:, 2])
    return 255 * torch.lerp(black, white, (images / 255).clamp_min(0) ** gamma)


def _colours(images: Tensor, draws: Tensor) -> Tensor:
    """Each channel a mixture of all three, some of them negative; greys stay as they are."""
    mixture = 3 * draws.reshape(-1, 3, 3) - 1
    mixture = mixture + (1 - mixture.sum(dim=2, keepdim=True)) / 3
    return torch.einsum("noc,nchw->nohw", mixture, images).clamp_(0, 255)


def _resolution(images: Tensor, draws: Tensor) -> Tensor:
    """Two times coarser or more, in squares or smooth."""
    size = images.shape[-1]
    factors = range(2, max(2, round(_COARSEST * size)) + 1)
    which = (draws[:, 0] * len(factors)).long()
    changed = torch.empty_like(images)
    for number, factor in enumerate(factors):
        rows = torch.nonzero(which == number).flatten()
        if len(rows):
            coarse = functional.interpolate(images[rows], size=[max(1, size // factor)] * 2, mode="area")
            squares = functional.interpolate(coarse, size=[size, size], mode="nearest")
            smooth = functional.interpolate(coarse, size=[size, size], mode="bilinear")
            changed[rows] = torch.where(_each(draws[rows, 1]) < 0.5, squares, smooth)
    return changed


def _grown(images: Tensor) -> Tensor:
    """The lightest of each pixel's surroundings."""
    for dim in (2, 3):
        for _ in range(max(1, round(_STROKE * images.shape[-1]))):
            last = images.shape[dim] - 1
            inner = torch.maximum(images.narrow(dim, 0, last), images.narrow(dim, 1, last))
            first, final = images.narrow(dim, 0, 1), images.narrow(dim, last, 1)
            images = torch.maximum(torch.cat([first, inner], dim), torch.cat([inner, final], dim))
    return images


def _each(numbers: Tensor) -> Tensor:
    """A number an image, as it stands beside pixels."""
    return numbers.view(-1, 1, 1, 1)


# In the order in which they are made.
_CHANGES: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (_strokes, _ink, _tone, _colours, _resolution)
STYLE_DRAWS = _DRAWS * len(_CHANGES)
