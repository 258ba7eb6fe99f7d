"""What the labels say of a teacher, and which of its answers are left to learn from."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from client.learning.methods import METHODS, Supervision
from client.learning.trust import agreement, doubtful_classes, weighed


def _known(
    labels: list[int], nearest: list[int], bought: list[bool] | None = None, classes: int = 4
) -> Supervision:
    """Images that lie at class texts, which are the axes."""
    texts = torch.eye(classes)
    return Supervision(
        torch.tensor(labels), texts, texts[nearest].clone(), torch.tensor(bought or [True] * len(labels)), 0.5
    )


def test_an_answer_counts_where_it_is_the_labels() -> None:
    known = _known([0, 1, 2, 3, 0], [0, 2, 2, 0, 0], [True, True, True, True, False])
    agreed = agreement(known)
    assert agreed.positions.tolist() == [0, 1, 2, 3]
    assert agreed.right.tolist() == [True, False, True, False]
    assert doubtful_classes(known, agreed).tolist() == [False, True, False, True]
    assert weighed(known, trusted=False).bought.tolist() == [True, False, True, False, False]


@pytest.mark.parametrize(("right", "kept"), [(7, 10), (6, 6)])
def test_of_a_class_that_the_teacher_knows_wrong_answers_count_as_well(right: int, kept: int) -> None:
    """Ten images of class 0, so many of which lie at its text; and one of class 1, which is doubted."""
    known = _known([0] * 10 + [1], [0] * right + [2] * (10 - right) + [3])
    counts = weighed(known, trusted=False).bought.tolist()
    assert counts == [True] * kept + [False] * (11 - kept)


def test_a_class_without_an_image_is_not_doubted() -> None:
    known = _known([0], [0])
    assert not doubtful_classes(known, agreement(known)).any()


def test_an_unlabelled_image_counts_where_the_teacher_is_mostly_right_about_that_class() -> None:
    labelled = (
        [0, 0, 1, 2, 3],
        [0, 0, 0, 1, 1],
    )  # 0: two of three right; 1: none of two; 2 and 3: never named
    known = _known([*labelled[0], -1, -1, -1], [*labelled[1], 0, 1, 2])
    assert weighed(known, trusted=False).bought.tolist()[5:] == [True, False, False]
    assert weighed(known, trusted=True).bought.tolist()[5:] == [True, True, True]


def test_a_wrong_answer_leaves_the_label_alone_to_learn_from() -> None:
    known = weighed(_known([0, 1], [0, 2]), trusted=False)
    targets = METHODS["vl2v-adip"].targets(known)
    assert torch.allclose(targets[0], known.text_head[0])
    assert torch.equal(targets[1], known.text_head[1])


@settings(deadline=None)
@given(st.integers(0, 2**16), st.integers(2, 6), st.integers(1, 30))
def test_gaps_and_right_answers_are_those_of_plain_arithmetic(seed: int, classes: int, images: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def unit(rows: int) -> Tensor:
        return functional.normalize(torch.randn(rows, 8, generator=generator), dim=1)

    labels = torch.randint(-1, classes, (images,), generator=generator)
    bought = torch.rand(images, generator=generator) < 0.7
    known = Supervision(labels, unit(classes), unit(images), bought, 0.5)
    agreed = agreement(known)
    expected = [i for i in range(images) if bought[i] and labels[i] >= 0]
    assert agreed.positions.tolist() == expected
    for row, i in enumerate(expected):
        cosines = [
            sum(a * b for a, b in zip(known.images[i].tolist(), t.tolist(), strict=True))
            for t in known.text_head
        ]
        own = cosines.pop(int(labels[i]))
        assert bool(agreed.right[row]) == all(own > other for other in cosines)
        assert math.isclose(agreed.gaps[row].item(), own - sum(cosines) / len(cosines), abs_tol=1e-5)


def test_nothing_bought_is_nothing_to_judge_by() -> None:
    known = _known([0, 1], [1, 0], [False, False])
    assert len(agreement(known).positions) == 0
    assert not weighed(known, trusted=False).bought.any()
