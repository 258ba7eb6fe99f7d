"""Changes of an image's style that leave what it shows: the same thing drawn, printed or lit otherwise.

A student that has seen its images in styles which their domains do not have is less bound to those domains.
Each change has its own chance, and is computed for those images alone that it falls on.
"""

from collections.abc import Callable
from functools import cache, partial

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
            images[on_device] = change(images.index_select(0, on_device), numbers[rows, 1:].to(images.device))
    return images


def _strokes(images: Tensor, draws: Tensor) -> Tensor:
    """Dark parts grow thicker, or thinner."""
    return _one_or_other(images, draws[:, 0], _darkest, _lightest)


def _ink(images: Tensor, draws: Tensor) -> Tensor:
    """Light for dark; or the outlines of what is there, drawn in black on white."""
    return _one_or_other(images, draws[:, 0], lambda these: 255 - these, _outlines)


def _outlines(images: Tensor) -> Tensor:
    contrasts = _lightest(images).sub_(_darkest(images))
    return 255 - contrasts.amax(1, keepdim=True).expand(-1, 3, -1, -1)


def _tone(images: Tensor, draws: Tensor) -> Tensor:
    """Middle tones darker or lighter (a gamma from 1/3 to 3), black and white nearer to each other."""
    gamma = 3 ** (2 * _each(draws[:, 0]) - 1)
    black, white = 255 * 0.3 * _each(draws[:, 1]), 255 * (1 - 0.3 * _each(draws[:, 2]))
    powers = (images / 255).clamp_min_(0).log_().mul_(gamma).exp_()  # a sixth of the time that pow takes
    return powers.mul_(white - black).add_(black)


def _colours(images: Tensor, draws: Tensor) -> Tensor:
    """Each channel a mixture of all three, some of them negative; greys stay as they are."""
    mixture = 3 * draws.reshape(-1, 3, 3) - 1
    mixture = mixture + (1 - mixture.sum(dim=2, keepdim=True)) / 3
    return torch.einsum("noc,nchw->nohw", mixture, images).clamp_(0, 255)


def _resolution(images: Tensor, draws: Tensor) -> Tensor:
    """Two times coarser or more, in squares or smooth.

    A square has the colour of its middle: as in drawings made of squares, it is of one thing or of another.
    Smooth ones are means.
    """
    size = images.shape[-1]
    factors = range(2, max(2, round(_COARSEST * size)) + 1)
    which = (draws[:, 0] * len(factors)).long()
    changed = torch.empty_like(images)
    for number, factor in enumerate(factors):
        rows = torch.nonzero(which == number).flatten()
        if len(rows):
            coarse = max(1, size // factor)
            in_squares, smoothly = partial(_in_squares, coarse=coarse), partial(_smoothly, coarse=coarse)
            changed[rows] = _one_or_other(images.index_select(0, rows), draws[rows, 1], in_squares, smoothly)
    return changed


def _in_squares(images: Tensor, coarse: int) -> Tensor:
    size = images.shape[-1]
    square = torch.arange(size, device=images.device) * coarse // size
    middle = ((square + 0.5) * size / coarse).long()
    return images.index_select(2, middle).index_select(3, middle)


def _smoothly(images: Tensor, coarse: int) -> Tensor:
    fewer, back = _along_a_side(images.shape[-1], coarse, images.device)
    return back.mT @ (fewer.mT @ images @ fewer) @ back


@cache
def _along_a_side(size: int, coarse: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Matrices that resize a row of pixels: by area to `coarse` of them, and back linearly."""
    fewer = functional.interpolate(torch.eye(size, device=device)[None], size=coarse, mode="area")
    return fewer, functional.interpolate(torch.eye(coarse, device=device)[None], size=size, mode="linear")


def _lightest(images: Tensor) -> Tensor:
    return _of_surroundings(images, torch.maximum)


def _darkest(images: Tensor) -> Tensor:
    return _of_surroundings(images, torch.minimum)


def _of_surroundings(images: Tensor, extreme: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The lightest or darkest within a stroke of each pixel, by windows that double until they reach it."""
    reach = max(1, round(_STROKE * images.shape[-1]))
    images = functional.pad(images, [reach] * 4, mode="replicate")
    for dim in (2, 3):
        window = 1
        while window < 2 * reach + 1:
            shift = min(window, 2 * reach + 1 - window)
            rest = images.shape[dim] - shift
            images = extreme(images.narrow(dim, 0, rest), images.narrow(dim, shift, rest))
            window += shift
    return images


def _one_or_other(
    images: Tensor, draws: Tensor, one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]
) -> Tensor:
    """`one` of the images whose number is below a half, and `other` of the rest."""
    changed = torch.empty_like(images)
    for chosen, change in ((draws < 0.5, one), (draws >= 0.5, other)):
        rows = torch.nonzero(chosen).flatten()
        if len(rows):
            changed[rows] = change(images.index_select(0, rows))
    return changed


def _each(numbers: Tensor) -> Tensor:
    """A number an image, as it stands beside pixels."""
    return numbers.view(-1, 1, 1, 1)


# In the order in which they are made.
_CHANGES: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (_strokes, _ink, _tone, _colours, _resolution)
STYLE_DRAWS = _DRAWS * len(_CHANGES)
