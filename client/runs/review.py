"""Images of a run that are worth a look: labels that its teacher doubts, and what mistakes resemble."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional

from client.data.examples import Example
from client.data.names import class_prompts, relative
from client.data.pixels import PixelStore
from client.learning.stages import plain_features
from client.learning.student import StudentNetwork
from client.learning.training_set import Images
from client.paths import is_file
from client.purchase.buyer import Buyer
from client.results.predictions import LabelledPrediction
from client.results.records import Disagreement, Neighbour, Review
from client.runs.dataset import Dataset
from client.runs.teacher_queries import query_of
from client.vendors.query import Query

_MOST_DISAGREEMENTS = 24
# Of more training images, so many are compared with a mistake, evenly spread.
_MOST_COMPARED = 10_000
# Images whose embeddings are in memory at once.
_CHUNK = 4096


def review(
    student: StudentNetwork,
    dataset: Dataset,
    images: Images,
    mistakes: Sequence[LabelledPrediction],
    teacher: Buyer | None,
) -> Review:
    """The review of a run; nothing is asked."""
    compared, doubted = (0, []) if teacher is None else _disagreements(dataset, teacher)
    return Review(
        compared=compared,
        disagree=len(doubted),
        disagreements=doubted[:_MOST_DISAGREEMENTS],
        neighbours=_neighbours(student, dataset, images, mistakes),
    )


def _disagreements(dataset: Dataset, teacher: Buyer) -> tuple[int, list[Disagreement]]:
    """How many training images were bought, and those whose label the teacher does not name.

    The largest lead of the teacher's class comes first.
    """
    texts, have = teacher.lookup([Query.text(prompt) for prompt in class_prompts(dataset.classes)])
    if not have.all():
        return 0, []
    compared, found = 0, list[Disagreement]()
    for start in range(0, len(dataset.train), _CHUNK):
        examples = [dataset.examples[position] for position in dataset.train[start : start + _CHUNK]]
        vectors, bought = teacher.lookup([query_of(example) for example in examples])
        compared += int(bought.sum())
        known = [example for example, is_bought in zip(examples, bought, strict=True) if is_bought]
        found += _doubted(known, vectors[bought] @ texts.T, dataset)
    return compared, sorted(found, key=lambda each: -each.lead)


def _doubted(
    examples: Sequence[Example], cosines: NDArray[np.float32], dataset: Dataset
) -> list[Disagreement]:
    """Those of some images of which another class text is nearer, by cosines of shape (n, classes)."""
    return [
        Disagreement(
            image=relative(example.path, dataset.folder.root),
            domain=example.domain,
            label=dataset.classes[example.label],
            teacher=dataset.classes[row.argmax()],
            lead=round(float(row.max() - row[example.label]), 4),
        )
        for example, row in zip(examples, cosines, strict=True)
        if row.argmax() != example.label
    ]


def _neighbours(
    student: StudentNetwork, dataset: Dataset, images: Images, mistakes: Sequence[LabelledPrediction]
) -> dict[str, Neighbour]:
    """Of each of some mistakes, the training image whose features are the nearest to its own."""
    every = max(1, -(-len(dataset.train) // _MOST_COMPARED))
    compared = dataset.train[::every]
    root = dataset.folder.root
    there = [each for each in mistakes if is_file(root / each.image)]
    if not there or not compared:
        return {}
    learnt = functional.normalize(plain_features(student, images, compared), dim=1)
    looked_at = PixelStore([_unlabelled(root / each.image) for each in there], None)
    seen = functional.normalize(plain_features(student, looked_at, range(len(there))), dim=1)
    cosines, nearest = (seen @ learnt.T).max(dim=1)
    found = {}
    for mistake, cosine, turn in zip(there, cosines.tolist(), nearest.tolist(), strict=True):
        example = dataset.examples[compared[turn]]
        found[mistake.image] = Neighbour(
            image=relative(example.path, root),
            label=dataset.classes[example.label],
            cosine=round(cosine, 4),
        )
    return found


def _unlabelled(path: Path) -> Example:
    return Example(str(path), "", -1, "", "", 0)
