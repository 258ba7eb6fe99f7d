"""What the labels say of a teacher, by how many of the images were bought."""

from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from client.data.domains import ImageFolder
from client.data.examples import Example
from client.learning.recipe import Recipe
from client.learning.supervision import Supervision
from client.learning.teacher_weights import weighed
from client.runs.dataset import Dataset
from client.runs.review import review
from client.runs.teacher_check import check_teacher
from tests.client.toy import run_config

_CONFIG = run_config("", target_domain=None, method="vl2v-adip")


def _dataset(labels: Tensor, classes: int, domains: str = "ab") -> Dataset:
    """Images of the domains in turn."""
    examples = tuple(
        Example(f"{number}.png", domains[number % len(domains)], label, str(number), str(number), 32)
        for number, label in enumerate(labels.tolist())
    )
    folder = ImageFolder(Path(), tuple(domains), tuple(map(str, range(classes))), {}, ())
    return Dataset(folder, None, folder.domains, examples, tuple("train" for _ in examples), ())


@pytest.mark.parametrize(
    ("right", "classes", "of_each", "bought", "learnt_from"),
    [
        (12, 4, 200, 40, True),
        (12, 4, 200, 800, False),
        (15, 4, 200, 800, True),
        (9, 40, 2, 80, True),  # too few a class for labels alone
        (9, 40, 4, 160, False),
    ],
)
def test_a_teacher_is_set_aside_where_chance_does_not_explain_what_it_gets_wrong(
    right: int, classes: int, of_each: int, bought: int, learnt_from: bool
) -> None:
    """Of 20 images so many lie at the text of their class, and the others at that of the next class."""
    labels = torch.arange(classes).repeat(of_each)
    turn = 9 * (torch.arange(len(labels)) // classes) % 20  # the first ten are as right as all are
    texts = torch.eye(classes)
    images = texts[torch.where(turn < right, labels, (labels + 1) % classes)]
    known = Supervision(labels, texts, images, torch.arange(len(labels)) < bought, 0.5)
    check = check_teacher(_CONFIG, _dataset(labels, classes), known).check
    assert check is not None
    assert check.accuracy == pytest.approx(right / 20, abs=0.06)
    assert check.learnt_from == learnt_from


@pytest.mark.parametrize(("of_each", "learnt_from"), [(2, True), (3, False)])
def test_three_labelled_images_a_class_are_enough_to_learn_without_a_weak_teacher(
    of_each: int, learnt_from: bool
) -> None:
    """One image of each class lies at its text, and each other one at the text of another class."""
    labels = torch.arange(40).repeat(of_each)
    images = torch.eye(40)[(labels + torch.arange(len(labels)) // 40) % 40]
    known = Supervision(labels, torch.eye(40), images, labels >= 0, 0.5)
    check = check_teacher(_CONFIG, _dataset(labels, 40), known).check
    assert check is not None
    assert check.accuracy == pytest.approx(1 / of_each)
    assert check.learnt_from == learnt_from


@pytest.mark.parametrize(("right", "trusted"), [(16, True), (15, False)])
def test_a_teacher_that_names_four_in_five_right_is_trusted(right: int, trusted: bool) -> None:
    labels = torch.arange(4).repeat(20)
    astray = torch.arange(80) // 4 >= right
    images = torch.eye(4)[torch.where(astray, (labels + 1) % 4, labels)]
    known = Supervision(labels, torch.eye(4), images, labels >= 0, 0.5)
    check = check_teacher(_CONFIG, _dataset(labels, 4), known).check
    assert check is not None
    assert (check.accuracy, check.trusted) == (right / 20, trusted)


@pytest.mark.parametrize("domains", ["a", "ab", "abcd", ascii_lowercase[:20]])
@pytest.mark.parametrize(("right", "learnt_from"), [(13, True), (11, True), (10, False)])
def test_what_chance_explains_does_not_hang_on_how_few_images_a_domain_has(
    right: int, learnt_from: bool, domains: str
) -> None:
    """A teacher that is right on 70% gets 10 or fewer of 20 in a case of 21, and 11 or fewer in one of 9."""
    labels = torch.arange(4).repeat(5)
    astray = torch.arange(20) >= right
    images = torch.eye(4)[torch.where(astray, (labels + 1) % 4, labels)]
    known = Supervision(labels, torch.eye(4), images, labels >= 0, 0.5)
    check = check_teacher(_CONFIG, _dataset(labels, 4, domains), known).check
    assert check is not None
    assert check.accuracy_by_names == pytest.approx(right / 20)
    assert check.learnt_from == learnt_from


@pytest.mark.parametrize("weighs", [True, False])
def test_how_right_it_is_by_the_names_in_use_is_told_from_how_right_it_is_by_the_texts(weighs: bool) -> None:
    """The texts of classes 2 and 3 are exchanged; of each class one image in ten lies at another's place."""
    labels = torch.arange(4).repeat(20)
    places = torch.where(torch.arange(80) // 4 % 10 == 9, (labels + 1) % 4, labels)
    known = Supervision(labels, torch.eye(4)[[0, 1, 3, 2]], torch.eye(4)[places], labels >= 0, 0.5)
    config = _CONFIG.changed(recipe=replace(Recipe(), weigh_teacher=weighs))
    checked = check_teacher(config, _dataset(labels, 4), known)
    assert checked.check is not None
    assert checked.check.named_by_images == ["2", "3"]
    assert checked.check.accuracy < 0.5
    assert checked.named.classes.any() == weighs
    assert checked.accuracy == pytest.approx(0.9 if weighs else checked.check.accuracy)
    assert checked.check.accuracy_by_names == checked.accuracy


def test_the_classes_in_doubt_are_those_whose_answers_are_weighed() -> None:
    """The text of class 1 takes the one image of class 0. The images of class 1, by which it is named, take
    those of class 3. So class 0 is in doubt by the texts, and class 3 by the names in use.
    """
    labels = torch.tensor([0] + [1] * 10 + [2] * 10 + [3] * 10)
    astray = functional.normalize(torch.tensor([[1.0, 0, 0, 0, 0.5], [0, 1.2, 0, 1, 0]]), dim=1)
    axes = torch.eye(5)
    texts = torch.stack([axes[0], astray[0], axes[2], axes[3]])
    images = torch.stack([astray[0], axes[1], axes[2], astray[1]])[labels]
    known = Supervision(labels, texts, images, labels >= 0, 0.5)
    checked = check_teacher(_CONFIG, _dataset(labels, 4), known)
    assert checked.check is not None
    assert checked.check.named_by_images == ["1"]
    assert checked.check.doubtful == ["3"]
    left = weighed(checked.named.known, checked.doubtful, trusted=checked.check.trusted)
    assert set(labels[~left.bought].tolist()) == {3}


@pytest.mark.parametrize("weighs", [True, False])
def test_a_review_compares_with_the_names_that_the_student_learnt_by(weighs: bool) -> None:
    """The texts of classes 2 and 3 are exchanged, and one image of class 0 lies at class 1."""
    labels = torch.arange(4).repeat(20)
    places = labels.clone()
    places[0] = 1
    known = Supervision(labels, torch.eye(4)[[0, 1, 3, 2]], torch.eye(4)[places], labels >= 0, 0.5)
    config = _CONFIG.changed(recipe=replace(Recipe(), weigh_teacher=weighs))
    dataset = _dataset(labels, 4)
    named = check_teacher(config, dataset, known).named
    nothing: Any = None
    found = review(nothing, dataset, nothing, [], named)
    assert (found.compared, found.disagree) == (80, 1 if weighs else 41)
    told = next(each for each in found.disagreements if each.label == "0")
    assert (told.image, told.teacher, told.lead) == ("0.png", "1", 1.0)


@pytest.mark.parametrize(
    ("right", "images", "more"), [(20, 200, 0), (15, 160, 132), (15, 4000, 0), (16, 80, None)]
)
def test_a_probe_says_how_many_more_images_would_settle_it(right: int, images: int, more: int | None) -> None:
    """Of 20 images so many lie at the text of their class; 400 are labelled."""
    labels = torch.arange(4).repeat(max(100, images // 4))
    astray = torch.arange(len(labels)) // 4 % 20 >= right
    answers = torch.eye(4)[torch.where(astray, (labels + 1) % 4, labels)]
    known = Supervision(labels, torch.eye(4), answers, torch.arange(len(labels)) < images, 0.5)
    config = _CONFIG.changed(recipe=replace(Recipe(), weigh_teacher=False))
    check = check_teacher(config, _dataset(labels, 4, "a"), known).check
    assert check is not None
    assert check.more_to_settle == more
