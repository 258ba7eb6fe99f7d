"""The teacher's own answers, beside those of students: it is asked about hold-outs and about the target.

This is the one place where images of the target domain are sent to the vendor. They are counted apart, and
nothing is trained on the answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from client.data.examples import Example
from client.data.file_memory import FileMemory
from client.data.wording import Sentences
from client.errors import DataError
from client.learning.prompts import ONE_PROMPT
from client.learning.teacher_weights import Named, agreement
from client.progress import Display
from client.purchase.buyer import Buyer
from client.results.evaluation import (
    Evaluation,
    accuracy_by_domain,
    accuracy_over_classes,
    accuracy_over_twins,
)
from client.results.records import Accuracy, Record, ZeroShotAccuracy
from client.runs.dataset import Dataset, read_domain
from client.runs.evaluation import leave_out_copies, twins_among
from client.runs.memo import Memo
from client.runs.mentions import unread_in
from client.runs.teacher_check import right_by_domain
from client.runs.teacher_queries import query_of
from client.vendors.query import Query
from shared.embeddings import ModelCard

ZERO_SHOT = "zero-shot"


class ZeroShotQueries(Record):
    """The queries that the teacher was asked.

    Attributes:
        prompts: class prompts.
        images: images that students are tested on.
    """

    prompts: int
    images: int


class ZeroShotPlan(Record):
    """`plan.json` of a comparison's row of the teacher.

    Attributes:
        model: the vendor's model.
        purchase: what it was asked.
    """

    model: ModelCard
    purchase: ZeroShotQueries


class ZeroShotSummary(Record):
    """`summary.json` of such a row, which pays for nothing itself.

    Attributes:
        method: "zero-shot".
        accuracy: of the teacher.
        queries_bought: none.
        queries_cached: queries that it used.
        seconds: wall-clock seconds of each stage.
    """

    method: str = ZERO_SHOT
    accuracy: Accuracy
    queries_bought: int = 0
    queries_cached: int
    seconds: dict[str, float]


# Images whose embeddings are in memory at once.
_CHUNK = 4096


@dataclass(frozen=True)
class TestSet:
    """The queries for the teacher: sentences about classes, and the images that students are tested on."""

    sentences: Sentences
    images: list[Query]
    examples: list[Example]
    dataset: Dataset

    @cached_property
    def prompts(self) -> list[Query]:
        """The queries about the sentences."""
        return [Query.text(each) for each in self.sentences.all]

    @property
    def queries(self) -> list[Query]:
        """All of it."""
        return [*self.prompts, *self.images]


def zero_shot_test_set(dataset: Dataset, display: Display, memo: Memo) -> TestSet:
    """The test set of these images: their hold-outs, and the target domain, of which there is one.

    Of the target domain it has what students are tested on. Files that are no images are named, once.

    Raises:
        DataError: the target domain has no readable image, or copies of images of other domains alone.
    """
    folder, domain = dataset.folder, dataset.target
    assert domain is not None
    target, skipped = read_domain(folder, domain, display, memo)
    unread_in(folder, [domain], skipped, display)
    if not target:
        raise DataError(f"{folder.given} has no readable image in the domain {domain!r}.")
    tested, _ = leave_out_copies(dataset, target, display)
    examples = [*(dataset.examples[position] for position in dataset.holdout), *tested]
    return TestSet(
        ONE_PROMPT.sentences(dataset.classes, (), dataset.wording),
        [query_of(example) for example in examples],
        examples,
        dataset,
    )


def grade(test_set: TestSet, teacher: Buyer, files: FileMemory) -> Accuracy:
    """The accuracy of the teacher's most similar class text.

    Images that the vendor refused count as wrong; `files` is what is known of image files.

    Raises:
        DataError: class prompts were refused, so there is nothing to compare with.
    """
    texts, have_texts = teacher.lookup(test_set.prompts)
    if not have_texts.all():
        raise DataError("The vendor did not embed all class prompts, so the teacher cannot be graded.")
    head, _ = test_set.sentences.class_texts(texts)
    images, have = teacher.lookup(test_set.images)
    predicted = (torch.from_numpy(images).nan_to_num() @ torch.from_numpy(head).T).argmax(dim=1)
    predicted[~torch.from_numpy(have)] = -1
    right = [p == example.label for p, example in zip(predicted.tolist(), test_set.examples, strict=True)]
    domains = [example.domain for example in test_set.examples]
    graded = accuracy_by_domain(right, domains)
    target, twins = str(test_set.dataset.target), twins_among(test_set.examples, files)
    accuracy = Evaluation(
        sources={name: accuracy for name, accuracy in graded.items() if name != target},
        targets={target: graded[target]},
        over_classes=accuracy_over_classes(right, domains, [e.label for e in test_set.examples]),
        over_twins={} if twins is None else accuracy_over_twins(right, domains, twins),
    ).record
    return accuracy.model_copy(update={"in_domain_cross_fitted": accuracy.in_domain})  # nothing was chosen


def known_zero_shot(
    dataset: Dataset, target: Sequence[Example], teacher: Buyer, named: Named
) -> dict[str, ZeroShotAccuracy]:
    """The teacher's own accuracy by domain, as far as what has been bought tells it; asks nothing.

    It answers by the names of classes that the student learnt by. The accuracy is of the images that students
    are tested on where all of them were bought, as a comparison's zero-shot row buys them. Otherwise it is of
    the training images that were bought, of which a target domain has none.
    """
    names, known = named.known.text_head.numpy(), right_by_domain(dataset, agreement(named))
    for domain in (*dataset.domains, *([dataset.target] if dataset.target else [])):
        held_out = [dataset.examples[i] for i in dataset.holdout if dataset.examples[i].domain == domain]
        tested_on = held_out if domain != dataset.target else target
        right = _graded(tested_on, names, teacher)
        if right and len(right) == len(tested_on):
            known[domain] = ZeroShotAccuracy(accuracy=fmean(right), images=len(right), on_test_set=True)
    return known


def _graded(examples: Sequence[Example], texts: NDArray[np.float32], teacher: Buyer) -> list[bool]:
    """Whether the teacher is right about each of the images that were bought."""
    right: list[bool] = []
    for start in range(0, len(examples), _CHUNK):
        chunk = examples[start : start + _CHUNK]
        images, have = teacher.lookup([query_of(example) for example in chunk])
        labels = np.array([example.label for example in chunk])
        right += ((images[have] @ texts.T).argmax(axis=1) == labels[have]).tolist()
    return right
