"""Drawings in many styles."""

import pytest
import torch

from examples import icon_styles
from examples.icon_styles import Drawings, restyle


def drawings(count: int, *, plain: bool) -> Drawings:
    """Squares in the middle, red where they have colours."""
    ink = torch.zeros(count, 1, 96, 96)
    ink[:, :, 30:66, 30:66] = 1
    colours = torch.zeros(count, 3, 96, 96)
    colours[:, 0] = 1
    return Drawings(ink, colours, torch.zeros(count, 96, 96, dtype=torch.uint8), torch.full((count,), plain))


@pytest.mark.parametrize("plain", [True, False])
def test_the_same_chance_gives_the_same_pictures_and_another_others(plain: bool) -> None:
    given = drawings(8, plain=plain)
    one, same, other = (restyle(given, 64, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.shape == (8, 3, 64, 64)
    assert one.equal(same)
    assert not one.equal(other)
    assert one.min() >= 0
    assert one.max() <= 1
    assert given.ink.equal(drawings(8, plain=plain).ink)  # what is given stays as it was


def test_a_badge_is_of_one_colour_and_holds_the_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(icon_styles, "BADGED", 1.0)
    pictures = restyle(drawings(64, plain=True), 64, torch.Generator().manual_seed(0))
    corners = pictures[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners > 0.9).all(dim=1).all(dim=1).float().mean() > 0.9  # but for pixel art of few levels
    edges = pictures[:, :, 2, 32]  # inside the badge, outside the drawing
    assert (edges < 0.9).any(dim=1).float().mean() > 0.5
