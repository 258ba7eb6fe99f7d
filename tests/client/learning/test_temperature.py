"""The temperature: the one that made the labels is found, and it makes a student as sure as it is right."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from client.learning.scores import in_double
from client.learning.temperature import evenly, fitted_temperature


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


def _of_all_candidates(scores: Tensor, labels: Tensor) -> float:
    """The same temperature, found by trying one candidate after the other."""
    exact = scores.double()
    candidates: list[float] = torch.logspace(-1, 2, 351).tolist()
    best = min(candidates, key=lambda each: functional.cross_entropy(exact / each, labels).item())
    most = (len(exact) + 1) / (len(exact) + 2)
    return next(
        (
            each
            for each in candidates
            if each >= best and (exact / each).softmax(dim=1).amax(dim=1).mean().item() <= most
        ),
        candidates[-1],
    )


@given(st.integers(0, 10_000), st.sampled_from(["drawn", "right", "any", "rounded", "alike"]))
def test_the_best_of_all_candidates_is_found(seed: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    images, classes = (int(torch.randint(2, 60, (1,), generator=generator)) for _ in range(2))
    scores = 60 * torch.rand(1, generator=generator) * torch.randn(images, classes, generator=generator)
    labels = torch.randint(classes, (images,), generator=generator)
    if kind == "drawn":
        labels = torch.multinomial((scores / 3).softmax(dim=1), 1, generator=generator).flatten()
    elif kind == "right":
        labels = scores.argmax(dim=1)
    elif kind == "rounded":
        scores = scores.round()
    elif kind == "alike":
        scores = scores[:, :1].expand(-1, classes)
    assert fitted_temperature(scores, labels) == _of_all_candidates(scores, labels)


def test_few_candidates_are_tried_and_few_scores_held_as_doubles_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores, labels = (each[:1000] for each in _world(3.0))
    found, tried, cross_entropy = fitted_temperature(scores, labels), list[int](), functional.cross_entropy

    def counted(exact: Tensor, labels: Tensor, *, reduction: str) -> Tensor:
        tried.append(exact.numel())
        return cross_entropy(exact, labels, reduction=reduction)

    monkeypatch.setattr(functional, "cross_entropy", counted)
    monkeypatch.setattr("client.learning.scores._SCORES_AT_ONCE", 2000)
    assert fitted_temperature(scores, labels) == found
    assert max(tried) <= 2000
    assert sum(tried) <= 2 * math.ceil(math.log2(351)) * scores.numel()


@pytest.mark.parametrize("count", [0, 1, 10_000, 10_001, 19_999, 25_000])
def test_a_temperature_is_fitted_by_ten_thousand_images_at_the_most(count: int) -> None:
    rows = evenly(torch.arange(count))
    assert min(count, 5000) <= len(rows) <= 10_000
    assert len(set(rows.diff().tolist())) <= 1


def test_scores_of_thousands_of_classes_are_made_doubles_some_rows_at_a_time() -> None:
    scores, labels = torch.rand(1500, 5000), torch.arange(1500)
    pieces = list(in_double(scores, labels))
    assert len(pieces) == 2
    assert torch.equal(torch.cat([exact for exact, _ in pieces]), scores.double())
    assert torch.equal(torch.cat([of_these for _, of_these in pieces]), labels)
