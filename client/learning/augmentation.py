"""The student's random views of a batch of images, as tensor arithmetic on whatever device they are on.

Crop, flip, ColorJitter and grayscale are drawn as torchvision's RandomResizedCrop, RandomHorizontalFlip,
ColorJitter and RandomGrayscale draw them, but for a whole batch at once, which takes a quarter of the time.
Two things differ: a crop is interpolated linearly without smoothing first (it is hardly ever reduced,
for images are kept a little larger than the student's side), and the order of ColorJitter's four steps is
drawn once a batch instead of once an image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from client.learning.recipe import Augmentation
from client.learning.styles import STYLE_DRAWS, changed_styles

_CROP_TRIES = 10
_CROP_RATIO = (3 / 4, 4 / 3)
_DRAWS = 2 * _CROP_TRIES + 8
# Values a piece: enough work for several threads, and temporary tensors of this size stay in a cache.
_PIECE = 2**20


@dataclass(frozen=True)
class AugmentationDraws:
    """The random draws of a batch: they follow from the generator alone, not from images, device or shards.

    Attributes:
        rows: uniform numbers, shape (n, _DRAWS), a row an image.
        order: in which order the steps of ColorJitter are taken.
        styles: uniform numbers for changes of style, shape (n, STYLE_DRAWS).
    """

    rows: Tensor
    order: tuple[int, ...]
    styles: Tensor

    @classmethod
    def draw(cls, n: int, generator: torch.Generator) -> Self:
        """For a batch of n images."""
        rows = torch.rand(n, _DRAWS, generator=generator)
        order = tuple(torch.randperm(len(_COLOUR_STEPS), generator=generator).tolist())
        return cls(rows, order, torch.rand(n, STYLE_DRAWS, generator=generator))

    def of(self, rows: slice | Tensor) -> "AugmentationDraws":
        """The draws of some of the images."""
        return AugmentationDraws(self.rows[rows], self.order, self.styles[rows])


def random_views(
    pixels: Tensor, aspects: Tensor, draws: AugmentationDraws, *, size: int, augmentation: Augmentation
) -> Tensor:
    """One random view of each image.

    Args:
        pixels: images, each squeezed into a square, uint8 of shape (n, side, side, 3).
        aspects: width / height of each image before that, shape (n,).
        draws: what was drawn for these n images.
        size: side of the views in pixels.
        augmentation: how far views may go.

    Returns:
        float32 of shape (n, 3, size, size), values from 0 to 255.
    """
    boxes = _crop_boxes(draws.rows, aspects, augmentation.crop_scale).to(pixels.device)
    factors = _colour_factors(draws.rows, augmentation.jitter).to(pixels.device)
    grey = draws.rows[:, -1] < augmentation.grayscale
    views = torch.empty(len(pixels), 3, size, size, device=pixels.device)
    piece = max(1, _PIECE // (3 * size * size)) if pixels.device.type == "cpu" else len(pixels)
    for start in range(0, len(pixels), piece):
        rows = slice(start, start + piece)
        view = _resample(pixels[rows], boxes[rows], size)
        view = changed_styles(view, draws.styles[rows], chance=augmentation.style)
        for step in draws.order:
            view = _COLOUR_STEPS[step](view, factors[step, rows])
        colourless = torch.nonzero(grey[rows]).flatten().to(pixels.device)
        view[colourless] = _grey(view.index_select(0, colourless)).expand(-1, 3, -1, -1)
        views[rows] = view
    return views


def _crop_boxes(draws: Tensor, aspects: Tensor, scale: tuple[float, float]) -> Tensor:
    """A box of each image that `scale` bounds the area of, mirrored or not, as an affine map (n, 2, 3).

    As torchvision's RandomResizedCrop: the first of ten boxes that fits, or else the largest in the middle.
    """
    log_ratio = torch.tensor(_CROP_RATIO).log()
    area = scale[0] + (scale[1] - scale[0]) * draws[:, :_CROP_TRIES]
    ratio = (log_ratio[0] + log_ratio.diff() * draws[:, _CROP_TRIES : 2 * _CROP_TRIES]).exp()
    relative = ratio / aspects[:, None]
    sides = torch.stack([(area * relative).sqrt(), (area / relative).sqrt()], dim=2)  # width, height
    fits = (sides <= 1).all(dim=2)
    first = sides[torch.arange(len(sides)), fits.int().argmax(dim=1)]
    bounded = aspects.clamp(*_CROP_RATIO) / aspects
    whole = torch.stack([bounded.clamp(max=1), (1 / bounded).clamp(max=1)], dim=1)
    fitted = fits.any(dim=1, keepdim=True)
    side = torch.where(fitted, first, whole)
    place = torch.where(fitted, draws[:, 2 * _CROP_TRIES : 2 * _CROP_TRIES + 2], 0.5)
    centre = (1 - side) * (2 * place - 1)
    mirror = torch.where(draws[:, 2 * _CROP_TRIES + 2] < 0.5, -1.0, 1.0)
    none = torch.zeros(len(draws))
    across = torch.stack([side[:, 0] * mirror, none, centre[:, 0]], dim=1)
    down = torch.stack([none, side[:, 1], centre[:, 1]], dim=1)
    return torch.stack([across, down], dim=1)


def _colour_factors(draws: Tensor, jitter: float) -> Tensor:
    """Brightness, contrast, saturation (around 1) and hue (around 0), shape (4, n, 1, 1, 1)."""
    spread = (2 * draws[:, -5:-1] - 1) * jitter
    centre = torch.tensor([1.0, 1.0, 1.0, 0.0])
    return (centre + spread).T[:, :, None, None, None].contiguous()


def _resample(pixels: Tensor, boxes: Tensor, size: int) -> Tensor:
    images = pixels.permute(0, 3, 1, 2).float()
    centres = (2 * torch.arange(size, device=pixels.device) + 1) / size - 1
    across = boxes[:, 0, :1] * centres + boxes[:, 0, 2:]  # boxes are upright, so a column has one place
    down = boxes[:, 1, 1:2] * centres + boxes[:, 1, 2:]
    grid = torch.stack([across[:, None].expand(-1, size, -1), down[:, :, None].expand(-1, -1, size)], dim=3)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _grey(images: Tensor) -> Tensor:
    """Luma (ITU-R 601), shape (n, 1, h, w)."""
    red, green, blue = images.unbind(1)
    return (red * 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114).unsqueeze(1)


# The steps of ColorJitter may write to the images that they are given.


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return images.mul_(factor).clamp_(0, 255)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    mean = _grey(images.mean((2, 3), keepdim=True))
    return images.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 255)


def _saturation(images: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_grey(images), images, factor).clamp_(0, 255)


def _hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of HSV: where it is less than a sixth of a turn from a channel's own hue, the channel has
    the pixel's highest value, beyond two sixths its lowest, and in between it falls evenly."""
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = (value - torch.minimum(torch.minimum(red, green), blue)).mul_(6)  # for a hue in turns
    safe = chroma.clamp(min=6e-3)  # where there is no chroma, the hue does not matter
    from_red = (green + blue).sub_(red).sub_(value).div_(safe).add_(2 / 6)
    hue = torch.copysign(from_red, green - blue).unsqueeze(1)
    # Half a turn more than from each channel's own hue, and one more to keep it positive.
    opposite = torch.tensor([9 / 6, 7 / 6, 5 / 6], device=images.device).view(1, 3, 1, 1)
    distance = (hue + (turns + opposite)).frac_().sub_(1 / 2).abs_().clamp_(1 / 6, 2 / 6)
    lifted = value.add_(chroma, alpha=1 / 6).unsqueeze(1)
    return torch.addcmul(lifted, chroma.unsqueeze(1), distance, value=-1, out=images)


# In the order of `_colour_factors`.
_COLOUR_STEPS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (_brightness, _contrast, _saturation, _hue)
