"""Changes of style: each does what its name says, to the images that it falls on, and to no others."""

import pytest
import torch
from torch import Tensor

from client.learning import styles
from client.learning.augmentation import AugmentationDraws, random_views
from client.learning.recipe import Augmentation
from client.learning.styles import STYLE_DRAWS, changed_styles


def _draws(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, STYLE_DRAWS, generator=torch.Generator().manual_seed(seed))


def _pictures(n: int, side: int = 64) -> Tensor:
    """Coloured squares on white, values from 0 to 255, shape (n, 3, side, side)."""
    pictures = torch.full((n, 3, side, side), 255.0)
    colours = torch.rand(n, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    pictures[:, :, side // 4 : -side // 4, side // 4 : -side // 4] = 200 * colours
    return pictures


@pytest.mark.parametrize("chance", [0.0, 0.25, 1.0])
def test_each_change_falls_on_its_share_of_the_images(chance: float) -> None:
    n = 1200
    pictures = torch.linspace(40, 200, 8 * 8).reshape(1, 1, 8, 8).repeat(n, 3, 1, 1)
    pictures[:, 1] = 255 - pictures[:, 1]
    changed = (changed_styles(pictures.clone(), _draws(n), chance=chance) != pictures).flatten(1).any(1)
    expected = 1 - (1 - chance) ** len(styles._CHANGES)
    assert changed.float().mean().item() == pytest.approx(expected, abs=0.04)


def test_values_stay_within_bounds() -> None:
    changed = changed_styles(_pictures(500), _draws(500), chance=0.5)
    assert changed.min().item() >= 0
    assert changed.max().item() <= 255
    assert changed.isfinite().all()


@pytest.mark.parametrize(("side", "reach"), [(64, 1), (224, 4)])
def test_strokes_grow_and_shrink_by_a_share_of_the_side(side: int, reach: int) -> None:
    picture = _pictures(1, side)
    dark = (picture < 255).sum().item() / 3
    width = dark**0.5
    grown, shrunk = (styles._strokes(picture, torch.tensor([[draw]])) for draw in (0.1, 0.9))
    assert (grown < 255).all(1).sum().item() == (width + 2 * reach) ** 2
    assert (shrunk < 255).all(1).sum().item() == (width - 2 * reach) ** 2


def test_ink_is_the_negative_or_the_outline_in_black_on_white() -> None:
    picture = _pictures(1)
    assert torch.equal(styles._ink(picture, torch.tensor([[0.1]])), 255 - picture)
    outline = styles._ink(picture, torch.tensor([[0.9]]))[0, 0]
    assert outline[0, 0] == outline[32, 32] == 255  # neither in the paper nor within the square
    assert outline[16, 32] < 255


def test_tones_move_without_colours_changing_places() -> None:
    greys = torch.linspace(0, 255, 64).expand(1, 3, 64, 64)
    for draws in torch.rand(50, 1, 9, generator=torch.Generator().manual_seed(0)):
        toned = styles._tone(greys, draws)[0, 0, 0]
        assert (toned.diff() >= 0).all()
        assert toned[0].item() <= 0.3 * 255 + 0.1
        assert toned[-1].item() >= 0.7 * 255 - 0.1


def test_colours_are_mixed_and_greys_are_not_touched() -> None:
    draws = torch.rand(8, 9, generator=torch.Generator().manual_seed(0))
    greys = torch.linspace(0, 255, 64).expand(8, 3, 64, 64)
    assert torch.allclose(styles._colours(greys, draws), greys, atol=0.01)
    pictures = _pictures(8)
    changed = styles._colours(pictures, draws)
    assert (changed[:, :, 32, 32] - pictures[:, :, 32, 32]).abs().amax(1).min().item() > 5


@pytest.mark.parametrize(
    ("side", "draw", "blocks"),
    [(64, 0.1, 32), (64, 0.5, 21), (64, 0.9, 16), (224, 0.01, 112), (224, 0.99, 16), (16, 0.9, 8)],
)
def test_resolution_falls_by_half_or_to_as_few_as_sixteen_squares(
    side: int, draw: float, blocks: int
) -> None:
    noise = 255 * torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    squares = styles._resolution(noise, torch.tensor([[draw, 0.1]]))[0, 0]
    assert _different_rows(squares) == blocks
    smooth = styles._resolution(noise, torch.tensor([[draw, 0.9]]))[0, 0]
    assert _different_rows(smooth) > 60 / 64 * side
    assert smooth.std() < noise.std()


def test_squares_have_colours_of_the_image_and_no_mixture_of_them() -> None:
    drawing = 255.0 * (torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)) < 0.5)
    squares = styles._resolution(drawing, torch.tensor([[0.99, 0.1]]))
    assert set(squares.flatten().tolist()) == {0, 255}
    assert torch.equal(squares[..., 0, 0], drawing[..., 3, 3])  # the middle of the first of 16 x 16
    smooth = styles._resolution(drawing, torch.tensor([[0.99, 0.9]]))
    assert len(set(smooth.flatten().tolist())) > 100


def _different_rows(picture: Tensor) -> int:
    return 1 + int((picture.diff(dim=0).abs().amax(1) > 0).sum())


def test_a_change_does_not_depend_on_the_other_images_of_a_batch() -> None:
    pictures, draws = _pictures(40), _draws(40)
    whole = changed_styles(pictures.clone(), draws, chance=0.5)
    parts = [
        changed_styles(pictures[rows].clone(), draws[rows], chance=0.5) for rows in (slice(13), slice(13, 40))
    ]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-3)


def test_views_change_their_style_as_often_as_asked() -> None:
    pixels = _pictures(64, 20).permute(0, 2, 3, 1).to(torch.uint8)
    chance = AugmentationDraws.draw(64, torch.Generator().manual_seed(0))

    def views(style: float) -> Tensor:
        augmentation = Augmentation(jitter=0.0, grayscale=0.0, style=style)
        return random_views(pixels, torch.ones(64), chance, size=16, augmentation=augmentation)

    changed = (views(0.2) - views(0.0)).abs().flatten(1).amax(1) > 1
    assert 0.5 < changed.float().mean().item() < 0.8  # 1 - 0.8^5 = 0.67
