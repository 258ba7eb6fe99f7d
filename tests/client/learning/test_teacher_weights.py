"""What the labels say of a teacher, and which of its answers are left to learn from."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from client.learning.methods import METHODS
from client.learning.supervision import Supervision
from client.learning.teacher_weights import (
    agreement,
    doubtful_classes,
    labels_alone,
    named_by_images,
    pseudo_labelled,
    unnamed,
    weighed,
)


def _known(
    labels: list[int], nearest: list[int], bought: list[bool] | None = None, classes: int = 4
) -> Supervision:
    """Images that lie at class texts, which are the axes."""
    texts = torch.eye(classes)
    return Supervision(
        torch.tensor(labels), texts, texts[nearest].clone(), torch.tensor(bought or [True] * len(labels)), 0.5
    )


def _weighed(known: Supervision, *, trusted: bool) -> Supervision:
    """What is left where those classes are in doubt that are so by the names of what is known."""
    return weighed(
        known, doubtful_classes(known, agreement(unnamed(known)), trusted=trusted), trusted=trusted
    )


def test_an_answer_counts_where_it_is_the_labels() -> None:
    known = _known([0, 1, 2, 3, 0], [0, 2, 2, 0, 0], [True, True, True, True, False])
    agreed = agreement(unnamed(known))
    assert agreed.positions.tolist() == [0, 1, 2, 3]
    assert agreed.right.tolist() == [True, False, True, False]
    assert doubtful_classes(known, agreed, trusted=False).tolist() == [False, True, False, True]
    assert _weighed(known, trusted=False).bought.tolist() == [True, False, True, False, False]
    nothing = torch.zeros(4, dtype=torch.bool)
    assert weighed(known, nothing, trusted=False).bought.tolist() == known.bought.tolist()


@pytest.mark.parametrize(("right", "kept"), [(7, 10), (6, 6)])
def test_of_a_class_that_the_teacher_knows_wrong_answers_count_as_well(right: int, kept: int) -> None:
    """Ten images of class 0, so many of which lie at its text; and one of class 1, which is doubted."""
    known = _known([0] * 10 + [1], [0] * right + [2] * (10 - right) + [3])
    counts = _weighed(known, trusted=False).bought.tolist()
    assert counts == [True] * kept + [False] * (11 - kept)


@pytest.mark.parametrize(("right", "kept"), [(4, 10), (3, 3)])
def test_a_trusted_teacher_is_doubted_where_it_knows_fewer_than_four_in_ten(right: int, kept: int) -> None:
    known = _known([0] * 10, [0] * right + [2] * (10 - right))
    assert _weighed(known, trusted=True).bought.tolist() == [True] * kept + [False] * (10 - kept)


def test_a_class_without_an_image_is_not_doubted() -> None:
    known = _known([0], [0])
    assert not doubtful_classes(known, agreement(unnamed(known)), trusted=False).any()
    assert named_by_images(known, trusted=False)[0] is known


def test_a_class_called_by_anothers_text_is_named_by_its_images() -> None:
    """The images of classes 2 and 3 lie at each other's texts, and one of each somewhere else."""
    known = _known([0, 1, *[2] * 8, *[3] * 8], [0, 1, *[3] * 7, 0, *[2] * 7, 1])
    renamed, which, own = named_by_images(known, trusted=False)
    assert which.tolist() == [False, False, True, True]
    assert torch.equal(renamed.text_head[:2], known.text_head[:2])
    assert (renamed.images @ renamed.text_head.T).argmax(1).tolist() == [0, 1, *[2] * 7, 0, *[3] * 7, 1]
    assert own.isnan().tolist() == [True, True] + [False] * 16
    counts = _weighed(renamed, trusted=False)
    assert counts.bought.all()  # no class is in doubt any more
    assert torch.equal(METHODS["vl2v-adip"].targets(counts)[2], (renamed.text_head[2] + known.images[2]) / 2)


def test_a_name_of_images_lies_where_texts_lie() -> None:
    """By plain arithmetic: texts and images are a gap apart, and the mean is moved by it."""
    generator = torch.Generator().manual_seed(0)
    towards_texts, towards_images, *classes = torch.eye(16)[:5]
    labels = torch.arange(3).repeat_interleave(6)
    images = torch.stack([classes[k] + 2 * towards_images for k in labels])
    images = functional.normalize(images + 0.1 * torch.randn(18, 16, generator=generator), dim=1)
    texts = functional.normalize(torch.stack([classes[k] + 2 * towards_texts for k in (0, 2, 1)]), dim=1)
    known = Supervision(labels, texts, images, torch.ones(18, dtype=torch.bool), 0.5)
    renamed, which, own = named_by_images(known, trusted=False)
    assert which.tolist() == [False, True, True]
    assert own.isnan().tolist() == [k == 0 for k in labels]
    means = [[sum(column) for column in zip(*images[labels == k].tolist(), strict=True)] for k in range(3)]
    means = [[x / math.dist(mean, [0.0] * 16) for x in mean] for mean in means]
    for k in (1, 2):
        moved = [
            means[k][i] + sum(t[i] for t in texts.tolist()) / 3 - sum(mean[i] for mean in means) / 3
            for i in range(16)
        ]
        expected = [x / math.dist(moved, [0.0] * 16) for x in moved]
        assert renamed.text_head[k].tolist() == pytest.approx(expected, abs=1e-5)
    assert torch.equal((images @ renamed.text_head.T).argmax(1), labels)


def test_an_image_is_compared_with_the_name_that_the_others_of_its_class_make() -> None:
    """By plain arithmetic: images of class 2 lie about one place, which is not that of its text."""
    known = _known([0, 1, *[2] * 4, *[3] * 4], [0, 1, *[3] * 4, *[3] * 4])
    known.images[2:6] += 0.3 * torch.tensor([[1, 0, 0, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, -1, 0, 0]])
    known.images[6:] = torch.eye(4)[2]
    known = replace(known, images=functional.normalize(known.images, dim=1))
    named = named_by_images(known, trusted=False)
    assert named.classes.tolist() == [False, False, True, True]
    images, texts = known.images.tolist(), known.text_head.tolist()
    means = [_mean(images[:1]), _mean(images[1:2]), _mean(images[2:6]), _mean(images[6:])]
    gap = [sum(t[i] for t in texts) / 4 - sum(mean[i] for mean in means) / 4 for i in range(4)]
    cosines = named.cosines(torch.arange(2, 6))
    for row, position in enumerate(range(2, 6)):
        others = _mean([images[i] for i in range(2, 6) if i != position])
        name = _unit([a + b for a, b in zip(others, gap, strict=True)])
        expected = [
            sum(map(math.prod, zip(images[position], text, strict=True))) for text in (*texts[:2], name)
        ]
        assert cosines[row, :3].tolist() == pytest.approx(expected, abs=1e-5)
    contained = known.images[2:6] @ named.known.text_head.T
    assert (cosines[:, 2] < contained[:, 2]).all()
    assert torch.equal(cosines[:, [0, 1, 3]], contained[:, [0, 1, 3]])
    assert torch.equal(named.cosines(torch.arange(2)), known.images[:2] @ named.known.text_head.T)


def _unit(vector: list[float]) -> list[float]:
    return [x / math.dist(vector, [0.0] * len(vector)) for x in vector]


def _mean(vectors: list[list[float]]) -> list[float]:
    return _unit([sum(column) for column in zip(*vectors, strict=True)])


def test_images_that_do_not_resemble_each_other_name_nothing() -> None:
    """Of class 0 no two are alike: their mean, with each of them in it, would be nearest to all of them."""
    known = _known([0, 0, 0, 1, 1, 2, 2, 3, 3], [1, 2, 3, 1, 1, 2, 2, 3, 3])
    renamed, which, own = named_by_images(known, trusted=False)
    assert not which.any()
    assert own.isnan().all()
    assert torch.equal(renamed.text_head, known.text_head)


def test_beside_texts_in_several_styles_classes_keep_theirs() -> None:
    known = replace(_known([2] * 8 + [3] * 8, [3] * 8 + [2] * 8), styled_texts=torch.eye(4).unsqueeze(1))
    assert not named_by_images(known, trusted=False)[1].any()


def test_one_image_names_no_class() -> None:
    assert not named_by_images(_known([0, 1], [1, 0]), trusted=False)[1].any()


def test_an_unlabelled_image_counts_where_the_teacher_is_mostly_right_about_that_class() -> None:
    labelled = (
        [0, 0, 1, 2, 3],
        [0, 0, 0, 1, 1],
    )  # 0: two of three right; 1: none of two; 2 and 3: never named
    known = _known([*labelled[0], -1, -1, -1], [*labelled[1], 0, 1, 2])
    assert _weighed(known, trusted=False).bought.tolist()[5:] == [True, False, False]
    assert _weighed(known, trusted=True).bought.tolist()[5:] == [True, True, True]


def test_right_in_half_of_the_cases_is_enough_for_an_unlabelled_image_to_count() -> None:
    known = _known([0, 1, 2, 3, 3, -1, -1], [0, 0, 2, 2, 2, 0, 2])  # 0: one of two; 2: one of three
    assert _weighed(known, trusted=False).bought.tolist()[5:] == [True, False]


def test_a_wrong_answer_leaves_the_label_alone_to_learn_from() -> None:
    known = _weighed(_known([0, 1], [0, 2]), trusted=False)
    targets = METHODS["vl2v-adip"].targets(known)
    assert torch.allclose(targets[0], known.text_head[0])
    assert torch.equal(targets[1], known.text_head[1])


@pytest.mark.parametrize(("classes", "most"), [(4, 1e-6), (64, 1e-6), (80, 0.6)])
def test_without_the_teacher_each_class_has_a_direction_of_its_own(classes: int, most: float) -> None:
    labels = torch.arange(classes)
    texts = functional.normalize(torch.rand(classes, 64), dim=1)
    known = labels_alone(Supervision(labels, texts, texts, torch.ones(classes, dtype=torch.bool), 0.5))
    cosines = known.text_head @ known.text_head.T
    assert torch.allclose(cosines.diagonal(), torch.ones(classes), atol=1e-5)
    assert (cosines - torch.eye(classes)).abs().max() < most
    assert torch.equal(known.text_head, labels_alone(known).text_head)
    assert torch.equal(METHODS["vl2v-adip"].targets(known), known.text_head)
    assert METHODS["kd"].targets(known).argmax(1).tolist() == labels.tolist()


def test_methods_of_embeddings_alone_or_of_texts_in_styles_need_a_teacher() -> None:
    needing = {name for name, method in METHODS.items() if method.needs_teacher}
    assert needing == {"image-only", "simkd", "rise"}


@given(st.integers(0, 2**16), st.floats(0.01, 1.0), st.floats(20.0, 400.0))
def test_the_teachers_sure_answers_are_labels_of_images_that_have_none(
    seed: int, confidence: float, temperature: float
) -> None:
    """Against the softmax of 100 x cosine / temperature, by plain arithmetic; others stay as they are."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 3, (20,), generator=generator)
    bought = torch.rand(20, generator=generator) < 0.7
    texts, images = (
        functional.normalize(torch.randn(rows, 8, generator=generator), dim=1) for rows in (3, 20)
    )
    known = Supervision(labels, texts, images, bought, 0.5)
    given_labels = pseudo_labelled(known, temperature=temperature, confidence=confidence).labels.tolist()
    for i, own in enumerate(labels.tolist()):
        odds = [
            math.exp(
                100 * sum(a * b for a, b in zip(images[i].tolist(), t.tolist(), strict=True)) / temperature
            )
            for t in texts
        ]
        sure = max(odds) / sum(odds)
        if abs(sure - confidence) < 1e-5:
            continue
        named = own < 0 and bool(bought[i]) and sure >= confidence
        assert given_labels[i] == (odds.index(max(odds)) if named else own)


def test_a_sure_answer_is_learnt_from_as_a_label_is_beside_the_embedding() -> None:
    known = _known([0, -1, -1], [0, 1, 2], [True, True, False])
    assert pseudo_labelled(known, temperature=1.0, confidence=0.0) is known
    shaken = replace(known, images=functional.normalize(known.images + 0.1, dim=1))
    learnt = METHODS["vl2v-adip"].targets(pseudo_labelled(shaken, temperature=1.0, confidence=0.9))
    assert torch.allclose(learnt[1], (shaken.images[1] + known.text_head[1]) / 2)
    assert torch.allclose(METHODS["vl2v-adip"].targets(shaken)[1], shaken.images[1])


@given(st.integers(0, 2**16), st.integers(2, 6), st.integers(1, 30))
def test_gaps_and_right_answers_are_those_of_plain_arithmetic(seed: int, classes: int, images: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def unit(rows: int) -> Tensor:
        return functional.normalize(torch.randn(rows, 8, generator=generator), dim=1)

    labels = torch.randint(-1, classes, (images,), generator=generator)
    bought = torch.rand(images, generator=generator) < 0.7
    known = Supervision(labels, unit(classes), unit(images), bought, 0.5)
    agreed = agreement(unnamed(known))
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
    assert len(agreement(unnamed(known)).positions) == 0
    assert not _weighed(known, trusted=False).bought.any()
