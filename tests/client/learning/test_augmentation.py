"""Views of a whole batch against torchvision's of one image: the same arithmetic and the same chances."""

from collections.abc import Callable
from statistics import fmean

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as one_image

from client.learning import augmentation
from client.learning.augmentation import AugmentationDraws, random_views
from client.learning.recipe import Augmentation

NOTHING = Augmentation(crop_scale=(1.0, 1.0), jitter=0.0, grayscale=0.0, style=0.0)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _pictures(n: int, side: int = 20) -> Tensor:
    """Smooth colours with every hue, uint8 of shape (n, side, side, 3)."""
    small = torch.rand(n, 3, 4, 4, generator=_generator())
    smooth = torch.nn.functional.interpolate(small, (side, side), mode="bilinear")
    return (255 * smooth).round().to(torch.uint8).permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("step", "reference"),
    [
        (augmentation._brightness, one_image.adjust_brightness),
        (augmentation._contrast, one_image.adjust_contrast),
        (augmentation._saturation, one_image.adjust_saturation),
        (augmentation._hue, one_image.adjust_hue),
    ],
)
def test_a_step_of_colour_is_torchvisions(
    step: Callable[[Tensor, Tensor], Tensor], reference: Callable[[Tensor, float], Tensor]
) -> None:
    images = _pictures(16).permute(0, 3, 1, 2).float()
    spread = 0.6 * torch.rand(16, 1, 1, 1, generator=_generator(1)) - 0.3
    factors = spread if step is augmentation._hue else 1 + spread
    expected = [255 * reference(i / 255, f.item()) for i, f in zip(images, factors, strict=True)]
    assert torch.allclose(step(images, factors), torch.stack(expected), atol=0.02)


@pytest.mark.parametrize("aspect", [0.3, 1.0, 1.5, 4.0])
def test_crops_are_distributed_as_torchvisions(aspect: float) -> None:
    n, height = 4000, 1000
    width = round(height * aspect)
    draws = AugmentationDraws.draw(n, _generator())
    boxes = augmentation._crop_boxes(draws.rows, torch.full((n,), aspect), (0.7, 1.0))
    sides = boxes[:, [0, 1], [0, 1]].abs()
    left = (boxes[:, 0, 2] + 1 - sides[:, 0]) / 2
    assert (boxes[:, 0, 0] < 0).float().mean().item() == pytest.approx(0.5, abs=0.03)

    image = torch.empty(3, height, width)
    torch.manual_seed(0)
    expected = _drawn_by_torchvision(image, n)
    for ours, theirs in (
        (sides[:, 0], [w / width for _, _, _, w in expected]),
        (sides[:, 1], [h / height for _, _, h, _ in expected]),
        (left, [j / width for _, j, _, _ in expected]),
        (sides.prod(dim=1), [h * w / height / width for _, _, h, w in expected]),
    ):
        theirs_sorted, ours_sorted = torch.tensor(theirs).sort().values, ours.sort().values
        assert (theirs_sorted - ours_sorted).abs().mean().item() < 0.01


def _drawn_by_torchvision(image: Tensor, n: int) -> list[tuple[int, int, int, int]]:
    crop = v2.RandomResizedCrop(8, scale=(0.7, 1.0))
    drawn = (crop.make_params([image]) for _ in range(n))
    return [(p["top"], p["left"], p["height"], p["width"]) for p in drawn]


def test_a_crop_shows_what_torchvisions_shows() -> None:
    pixels = _pictures(64, side=73)
    draws = AugmentationDraws.draw(64, _generator())
    only_crop = Augmentation(jitter=0.0, grayscale=0.0, style=0.0)
    views = random_views(pixels, torch.ones(64), draws, size=64, augmentation=only_crop)
    boxes = augmentation._crop_boxes(draws.rows, torch.ones(64), only_crop.crop_scale)
    for picture, view, box in zip(pixels, views, boxes, strict=True):
        side = (73 * box[[0, 1], [0, 1]].abs()).round().int().tolist()
        left, top = ((73 * (box[:, 2] + 1) - torch.tensor(side)) / 2).round().int().tolist()
        reference = one_image.resized_crop(
            picture.permute(2, 0, 1).float(), top, left, side[1], side[0], [64, 64]
        )
        reference = reference.flip(2) if box[0, 0] < 0 else reference
        assert (view - reference).abs().mean().item() < 2.5  # of 255; a crop starts between pixels here


def test_no_augmentation_is_the_image_or_its_mirror() -> None:
    pixels = _pictures(32)
    views = random_views(
        pixels, torch.ones(32), AugmentationDraws.draw(32, _generator()), size=20, augmentation=NOTHING
    )
    images = pixels.permute(0, 3, 1, 2).float()
    same = torch.isclose(views, images, atol=0.01).flatten(1).all(dim=1)
    mirrored = torch.isclose(views, images.flip(3), atol=0.01).flatten(1).all(dim=1)
    assert (same | mirrored).all()
    assert 8 <= int(mirrored.sum()) <= 24


def test_the_share_of_grey_views_is_as_asked() -> None:
    views = random_views(
        _pictures(600, side=8), torch.ones(600), AugmentationDraws.draw(600, _generator()), size=8,
        augmentation=Augmentation(grayscale=0.1, style=0.0),
    )  # fmt: skip
    grey = ((views.amax(1) - views.amin(1)).flatten(1).amax(1) < 0.01).float().mean().item()
    assert grey == pytest.approx(0.1, abs=0.04)


def test_the_whole_augmentation_moves_colours_as_far_as_torchvisions() -> None:
    """The mean and the deviation, over views of one image, of each channel's mean."""
    picture = _pictures(1, side=24)
    n = 1500
    ours = random_views(
        picture.expand(n, -1, -1, -1), torch.ones(n), AugmentationDraws.draw(n, _generator()), size=16,
        augmentation=Augmentation(style=0.0),
    ).mean((2, 3))  # fmt: skip
    compose = v2.Compose(
        [v2.RandomResizedCrop(16, scale=(0.7, 1.0)), v2.RandomHorizontalFlip(), v2.ColorJitter(*[0.3] * 4),
         v2.RandomGrayscale(0.1)]
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = torch.stack([compose(picture[0].permute(2, 0, 1)).float().mean((1, 2)) for _ in range(n)])
    assert torch.allclose(ours.mean(0), theirs.mean(0), atol=3.0)
    assert torch.allclose(ours.std(0), theirs.std(0), atol=2.0)


def test_views_follow_from_the_seed_and_not_from_pieces_or_shards() -> None:
    pixels, aspects = _pictures(50), torch.linspace(0.5, 2.0, 50)
    draws = AugmentationDraws.draw(50, _generator(3))

    def views(rows: slice) -> Tensor:
        return random_views(pixels[rows], aspects[rows], draws.of(rows), size=16, augmentation=Augmentation())

    whole = views(slice(None))
    assert torch.equal(whole, views(slice(None)))
    assert torch.allclose(whole, torch.cat([views(slice(0, 7)), views(slice(7, 50))]), atol=1e-3)
    other = AugmentationDraws.draw(50, _generator(4))
    assert fmean(map(float, (other.rows - draws.rows).abs().mean(1))) > 0.2
