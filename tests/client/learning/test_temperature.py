"""The temperature: the one that made the labels is found, and it makes a student as sure as it is right."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from client.learning.temperature import fitted_temperature


def _world(temperature: float) -> tuple[Tensor, Tensor]:
    """Scores, and labels drawn from softmax(scores / temperature)."""
    generator = torch.Generator().manual_seed(0)
    scores = temperature * 3 * torch.randn(20_000, 5, generator=generator)
    chances = (scores / temperature).softmax(dim=1)
    return scores, torch.multinomial(chances, 1, generator=generator).flatten()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 12.0])
def test_what_made_the_labels_is_found(temperature: float) -> None:
    assert fitted_temperature(*_world(temperature)) == pytest.approx(temperature, rel=0.05)


def test_a_student_is_then_as_sure_as_it_is_right() -> None:
    scores, labels = _world(8.0)
    right = (scores.argmax(dim=1) == labels).float().mean()
    sure = (scores / fitted_temperature(scores, labels)).softmax(dim=1).amax(dim=1).mean()
    assert scores.softmax(dim=1).amax(dim=1).mean() > right + 0.1
    assert sure == pytest.approx(right.item(), abs=0.01)


@pytest.mark.parametrize("classes", [2, 54, 1000])
@pytest.mark.parametrize("images", [1, 16, 40])
def test_few_images_that_are_all_right_do_not_make_a_student_surer_than_they_can_tell(
    classes: int, images: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (images,), generator=generator)
    scores = 10 * torch.rand(images, classes, generator=generator)
    scores[torch.arange(images), labels] = 15.0
    sure = (scores / fitted_temperature(scores, labels)).softmax(dim=1).amax(dim=1).mean().item()
    assert sure <= (images + 1) / (images + 2)
    assert sure == pytest.approx((images + 1) / (images + 2), rel=0.02)


def test_where_some_of_a_thousand_images_are_wrong_cross_entropy_alone_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = 150 * torch.randn(1000, 7, generator=generator)
    labels = torch.multinomial((scores / 2).softmax(dim=1), 1, generator=generator).flatten()
    assert 0.98 < (scores.argmax(dim=1) == labels).float().mean() < 0.995
    fitted = fitted_temperature(scores, labels)
    misfit = [functional.cross_entropy(scores / (share * fitted), labels) for share in (0.98, 1.0, 1.02)]
    assert min(misfit) == misfit[1]


def test_scores_that_are_never_wrong_or_always_wrong_give_a_number() -> None:
    labels = torch.arange(3)
    assert fitted_temperature(10 * torch.eye(3), labels) == pytest.approx(10 / math.log(8), rel=0.02)
    assert fitted_temperature(-10 * torch.eye(3), labels) == pytest.approx(100)
