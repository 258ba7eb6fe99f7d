"""One drawing in many styles, so that the teacher learns what is drawn and not how: whole batches at once."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

PIXEL_GRIDS = (14, 16, 18, 20, 24)
BADGED = 0.06


@dataclass(frozen=True)
class Drawings:
    """A batch of icons before they have a style.

    Attributes:
        ink: how much is drawn, shape (n, 1, h, w), in [0, 1].
        colours: of what is drawn, shape (n, 3, h, w), in [0, 1].
        regions: enclosed regions of those of one colour, shape (n, h, w), numbered from 1.
        plain: which are of one colour, shape (n,).
    """

    ink: Tensor
    colours: Tensor
    regions: Tensor
    plain: Tensor


def restyle(drawings: Drawings, size: int, chance: torch.Generator) -> Tensor:
    """Pictures of size x size, shape (n, 3, size, size), in [0, 1]."""
    ink, colours = drawings.ink.clone(), drawings.colours.clone()
    _stroke(ink, drawings.plain, chance)
    colours = torch.where(_each(drawings.plain), _paint(ink, chance), colours)
    _cartoon(ink, colours, drawings, chance)
    _recolour(ink, colours, ~drawings.plain, chance)
    paper = _paper(colours, drawings.plain, chance)
    badged = _draw(len(ink), chance) < BADGED
    paper = torch.where(_each(badged), _badges(len(ink), size, chance), paper)
    moved = _moved(torch.cat([colours * ink, ink], dim=1), size, badged, chance)
    pictures = moved[:, :3] + paper * (1 - moved[:, 3:])
    _pixelate(pictures, chance)
    grey = _draw(len(pictures), chance) < 0.12
    pictures[grey] = pictures[grey].mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    return pictures.clamp_(0, 1)


def _draw(count: int, chance: torch.Generator) -> Tensor:
    return torch.rand(count, generator=chance)


def _between(low: float, high: float, *shape: int, chance: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=chance)


def _each(chosen: Tensor) -> Tensor:
    """A flag an image, as it stands beside pixels."""
    return chosen.view(-1, 1, 1, 1)


def _grown(ink: Tensor, by: int) -> Tensor:
    return functional.max_pool2d(ink, 2 * by + 1, 1, by)


def _stroke(ink: Tensor, plain: Tensor, chance: torch.Generator) -> None:
    """Thicken 12% of the drawings, thin 5%, and show 10% of them, the solid ones, by their outline."""
    turn = _draw(len(ink), chance)
    thick, thin, outlined = (
        plain & (turn < 0.12),
        plain & (turn >= 0.12) & (turn < 0.17),
        plain & (turn >= 0.17),
    )
    outlined &= (turn < 0.27) & (ink.mean((1, 2, 3)) > 0.22)
    ink[thick] = _grown(ink[thick], 1)
    ink[thin] = -_grown(-ink[thin], 1)
    ink[outlined] = (_grown(ink[outlined], 2) + _grown(-ink[outlined], 2)).clamp(0, 1)


def _paint(ink: Tensor, chance: torch.Generator) -> Tensor:
    """What drawings of one colour are drawn in: near black, a colour, or from a colour to another."""
    count, _, height, width = ink.shape
    paint = _between(0, 1, count, 3, 1, 1, chance=chance) * _between(0, 0.75, count, 1, 1, 1, chance=chance)
    paint[_draw(count, chance) < 0.45] = 0.05
    other = _between(0, 0.9, count, 3, 1, 1, chance=chance)
    shaded = _each(_draw(count, chance) < 0.15).float()
    down = torch.linspace(0, 1, height).view(1, 1, -1, 1)
    return torch.lerp(paint, other, shaded * down).expand(-1, -1, -1, width).clone()


def _cartoon(ink: Tensor, colours: Tensor, drawings: Drawings, chance: torch.Generator) -> None:
    """Fill what lines enclose with colours, in 38% of the drawings of one colour."""
    filled = drawings.plain & (_draw(len(ink), chance) < 0.38)
    count = int(filled.sum())
    palette = _between(0.25, 1, count, 8, 3, chance=chance)
    if not count:
        return
    regions = drawings.regions[filled].long()
    inside = (regions > 0).float().unsqueeze(1)
    fill = torch.gather(palette.transpose(1, 2), 2, regions.flatten(1).unsqueeze(1).expand(-1, 3, -1))
    fill = _grown(fill.view(count, 3, *regions.shape[1:]) * inside, 1)
    own = _each(_draw(count, chance) < 0.25).float()
    stroke = torch.lerp(colours[filled], _between(0, 1, count, 3, 1, 1, chance=chance), own)
    lines = ink[filled]
    colours[filled] = torch.lerp(fill, stroke, lines)
    ink[filled] = torch.maximum(lines, _grown(inside, 1))


def _recolour(ink: Tensor, colours: Tensor, coloured: Tensor, chance: torch.Generator) -> None:
    """Mix the channels of 30% of the drawings of many colours, and line 15% of them in black."""
    count = len(ink)
    mixed = coloured & (_draw(count, chance) < 0.3)
    mix = _between(0, 1, count, 3, 3, chance=chance) ** 3
    mix /= mix.sum(dim=2, keepdim=True)
    colours[mixed] = torch.einsum("nij,njhw->nihw", mix[mixed], colours[mixed])
    lined = coloured & (_draw(count, chance) < 0.15)
    around = _grown(ink[lined], 2)
    colours[lined] = colours[lined] * ink[lined] * (1 - (around - ink[lined]))
    ink[lined] = around


def _badges(count: int, size: int, chance: torch.Generator) -> Tensor:
    """White papers with a disc or a rounded square of one colour on them, shape (count, 3, size, size)."""
    across = torch.linspace(-1, 1, size).abs()
    power = _each(torch.where(_draw(count, chance) < 0.7, 2.0, 8.0))
    inside = across.view(1, 1, 1, -1) ** power + across.view(1, 1, -1, 1) ** power < 0.97
    return torch.where(inside, _between(0, 1, count, 3, 1, 1, chance=chance), torch.tensor(1.0))


def _paper(colours: Tensor, plain: Tensor, chance: torch.Generator) -> Tensor:
    """White for 60%, else light, dark under drawings of one colour (which turn light), or any colour."""
    count = len(colours)
    turn = _draw(count, chance)
    paper = torch.ones(count, 3, 1, 1)
    light, dark, any_colour = (turn >= 0.60) & (turn < 0.82), (turn >= 0.82) & plain, (turn >= 0.86) & ~plain
    tint = _between(0, 1, count, 3, 1, 1, chance=chance)
    paper[light] = 1 - 0.45 * tint[light]
    paper[dark] = 0.35 * tint[dark]
    paper[any_colour] = tint[any_colour]
    colours[dark] = 1 - 0.9 * colours[dark]
    return paper


def _moved(layers: Tensor, size: int, badged: Tensor, chance: torch.Generator) -> Tensor:
    """Scaled, turned, mirrored and shifted a little, and resized; smaller where a badge must hold them."""
    count = len(layers)
    scale = _between(0.85, 1.25, count, chance=chance) * torch.where(badged, 1.5, 1.0)
    angle = 0.12 * torch.randn(count, generator=chance)
    mirror = 1 - 2 * (_draw(count, chance) < 0.5).float()
    move = torch.zeros(count, 2, 3)
    move[:, 0, 0], move[:, 0, 1] = scale * angle.cos() * mirror, -scale * angle.sin()
    move[:, 1, 0], move[:, 1, 1] = scale * angle.sin() * mirror, scale * angle.cos()
    move[:, :, 2] = _between(-0.12, 0.12, count, 2, chance=chance)
    grid = functional.affine_grid(move, [count, layers.shape[1], size, size], align_corners=False)
    return functional.grid_sample(layers, grid, align_corners=False)


def _pixelate(pictures: Tensor, chance: torch.Generator) -> None:
    """Make pixel art of 22%: a third of it in two levels a channel, a third in four, and the rest smooth."""
    chosen = _draw(len(pictures), chance) < 0.22
    grid = PIXEL_GRIDS[math.floor(_draw(1, chance).item() * len(PIXEL_GRIDS))]
    turn = _each(_draw(int(chosen.sum()), chance))
    if not chosen.any():
        return
    coarse = functional.interpolate(pictures[chosen], size=(grid, grid), mode="area")
    bright = (coarse > _each(_between(0.5, 0.8, len(coarse), chance=chance))).float()  # keeps thin dark lines
    coarse = torch.where(turn < 1 / 3, bright, torch.where(turn < 2 / 3, (coarse * 3).round() / 3, coarse))
    pictures[chosen] = functional.interpolate(coarse, size=tuple(pictures.shape[2:]), mode="nearest")
