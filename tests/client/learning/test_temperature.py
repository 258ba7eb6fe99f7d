"""The temperature: the one that made the labels is found, and it makes a student as sure as it is right."""

import pytest
import torch
from torch import Tensor

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


def test_scores_that_are_never_wrong_or_always_wrong_give_a_number() -> None:
    labels = torch.arange(3)
    assert fitted_temperature(10 * torch.eye(3), labels) == pytest.approx(0.1)
    assert fitted_temperature(-10 * torch.eye(3), labels) == pytest.approx(100)
