"""Answers about images: the student's, and where it is unsure those of student and vendor together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.deferral.answers import Answer, AnsweredBy
from client.deferral.asking import Asker
from client.learning.rejection import NEVER, shows_none
from client.vendors.query import Query


@dataclass(frozen=True)
class Answers:
    """What is said of some images, and by whom.

    Attributes:
        probabilities: the classes of each, shape (n, classes).
        answered_by: "student", or who answered with it: "cache" or "vendor".
        rejected: which show none of the classes, shape (n,).
        queries: how many queries were paid for.
        cost_micros: what they cost, in millionths of the vendor's currency unit.
        stopped: why the student alone answered about some that were to be asked about; empty otherwise.
    """

    probabilities: NDArray[np.floating]
    answered_by: list[AnsweredBy]
    rejected: NDArray[np.bool_]
    queries: int = 0
    cost_micros: int = 0
    stopped: str = ""


def students_alone(probabilities: NDArray[np.floating], reject_below: float = NEVER) -> Answers:
    """The student's own answers, of probabilities of shape (n, classes); `shows_none` rejects some."""
    return Answers(probabilities, ["student"] * len(probabilities), shows_none(probabilities, reject_below))


def ask_about(own: Answers, positions: Sequence[int], queries: Sequence[Query], asker: Asker) -> Answers:
    """The student's answers, with the vendor's where it was asked and answered.

    Args:
        own: the student's.
        positions: of the images to ask about, those that matter most first.
        queries: their queries, in the same order.
        asker: the vendor.
    """
    if not positions:
        return own
    said = asker.ask(queries)
    probabilities, rejected = own.probabilities.astype(np.float64), own.rejected.copy()
    answered_by = list(own.answered_by)
    for position, vendor in zip(positions, said.of_each, strict=True):
        if vendor is not None:
            answer = Answer(probabilities[position], "student").with_vendor(vendor)
            probabilities[position], rejected[position] = answer.probabilities, answer.rejected
            answered_by[position] = answer.answered_by
    return Answers(probabilities, answered_by, rejected, said.queries, said.cost_micros, said.stopped)
