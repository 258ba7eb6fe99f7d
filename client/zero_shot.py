"""The teacher's own answers, beside those of students: it is asked about hold-outs and about the target.

This is the one place where images of the target domain are sent to the vendor. They are counted apart, and
nothing is trained on the answers.
"""

from dataclasses import dataclass
from typing import Any

import torch

from client.buying.queries import Query
from client.buying.teacher import Teacher
from client.data.domains import Example, class_prompts
from client.display import Display
from client.errors import DataError
from client.results.evaluation import Evaluation, accuracy_by_domain
from client.shared_work import SharedWork
from client.sources import Sources, read_domain

ZERO_SHOT = "zero-shot"


@dataclass(frozen=True)
class Exam:
    """What the teacher is asked: the class prompts, and the images that students are tested on."""

    prompts: list[Query]
    images: list[Query]
    examples: list[Example]
    sources: Sources

    @property
    def queries(self) -> list[Query]:
        """All of it."""
        return [*self.prompts, *self.images]


def zero_shot_exam(sources: Sources, display: Display, shared: SharedWork) -> Exam:
    """The exam of these sources: their hold-outs, and all of the target domain.

    Raises:
        DataError: the target domain has no readable image.
    """
    target, _ = read_domain(sources.folder, sources.target, display, shared)
    if not target:
        raise DataError(f"{sources.folder.root} has no readable image in the domain {sources.target!r}.")
    examples = [*(sources.examples[position] for position in sources.holdout), *target]
    return Exam(
        [Query.text(prompt) for prompt in class_prompts(sources.folder.classes)],
        [Query.image_file(example.path, example.digest) for example in examples],
        examples,
        sources,
    )


def grade(exam: Exam, teacher: Teacher) -> dict[str, Any]:
    """The accuracy of the teacher's most similar class text, as `summary.json` has it.

    Images that the vendor refused count as wrong.

    Raises:
        DataError: class prompts were refused, so there is nothing to compare with.
    """
    texts, have_texts = teacher.lookup(exam.prompts)
    if not have_texts.all():
        raise DataError("The vendor did not embed all class prompts, so the teacher cannot be graded.")
    images, have = teacher.lookup(exam.images)
    predicted = (torch.from_numpy(images).nan_to_num() @ torch.from_numpy(texts).T).argmax(dim=1)
    predicted[~torch.from_numpy(have)] = -1
    labels = torch.tensor([example.label for example in exam.examples])
    domains = [example.domain for example in exam.examples]
    graded = accuracy_by_domain(predicted, labels, domains)
    target = exam.sources.target
    return Evaluation(
        sources={name: accuracy for name, accuracy in graded.items() if name != target},
        targets={target: graded[target]},
    ).to_json()
