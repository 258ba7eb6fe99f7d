"""Images of a run that are worth a look: labels that its teacher doubts, and what mistakes resemble."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional

from client.data.examples import Example
from client.data.names import relative
from client.data.pixels import PixelStore
from client.learning.stages import plain_features
from client.learning.student import StudentNetwork
from client.learning.teacher_weights import Named
from client.learning.training_set import Images
from client.paths import is_file
from client.results.predictions import LabelledPrediction
from client.results.records import Disagreement, Neighbour, Review
from client.runs.dataset import Dataset

_MOST_DISAGREEMENTS = 24
# Of more training images, so many are compared with a mistake, evenly spread.
_MOST_COMPARED = 10_000
# Images that are compared with all classes at once.
_CHUNK = 4096


def review(
    student: StudentNetwork,
    dataset: Dataset,
    images: Images,
    mistakes: Sequence[LabelledPrediction],
    named: Named | None,
) -> Review:
    """The review of a run; nothing is asked. `named` is what was bought of its teacher, if there is one."""
    compared, doubted = (0, []) if named is None else _disagreements(dataset, named)
    return Review(
        compared=compared,
        disagree=len(doubted),
        disagreements=doubted[:_MOST_DISAGREEMENTS],
        neighbours=_neighbours(student, dataset, images, mistakes),
    )


def _disagreements(dataset: Dataset, named: Named) -> tuple[int, list[Disagreement]]:
    """How many training images were bought, and those whose label the teacher does not name.

    It names them as it does for the student: by a class's text, or by what its images have in common. The
    largest lead of the teacher's class comes first.
    """
    positions, classes, found = named.known.judged_by, dataset.classes, list[Disagreement]()
    for rows in torch.split(positions, _CHUNK):
        cosines, labels = named.cosines(rows), named.known.labels[rows]
        nearest = cosines.max(dim=1)
        leads = nearest.values - cosines.gather(1, labels.unsqueeze(1)).squeeze(1)
        for row in torch.nonzero(nearest.indices != labels).flatten().tolist():
            example = dataset.examples[int(rows[row])]
            found.append(
                Disagreement(
                    image=relative(example.path, dataset.folder.root),
                    domain=example.domain,
                    label=classes[example.label],
                    teacher=classes[int(nearest.indices[row])],
                    lead=round(float(leads[row]), 4),
                )
            )
    return len(positions), sorted(found, key=lambda each: -each.lead)


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
