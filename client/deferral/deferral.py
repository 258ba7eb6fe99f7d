"""Answers about images: the student's, and where it is unsure those of student and vendor together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.buying.queries import Query
from client.deferral.asking import AnsweredBy, Asker
from client.deferral.combination import combined


@dataclass(frozen=True)
class Answers:
    """What is said of some images, and by whom.

    Attributes:
        probabilities: the classes of each, shape (n, classes).
        answered_by: "student", or who answered with it: "cache" or "vendor".
        queries: how many queries were paid for.
        cost_micros: what they cost, in millionths of the vendor's currency unit.
        stopped: why the student alone answered about some that were to be asked about; empty otherwise.
    """

    probabilities: NDArray[np.floating]
    answered_by: list[AnsweredBy]
    queries: int = 0
    cost_micros: int = 0
    stopped: str = ""


def students_alone(probabilities: NDArray[np.floating]) -> Answers:
    """The student's own answers, of probabilities of shape (n, classes)."""
    return Answers(probabilities, ["student"] * len(probabilities))


def ask_about(
    probabilities: NDArray[np.floating], positions: Sequence[int], queries: Sequence[Query], asker: Asker
) -> Answers:
    """The student's answers, with the vendor's where it was asked and answered.

    Args:
        probabilities: the student's, shape (n, classes).
        positions: of the images to ask about, those that matter most first.
        queries: their queries, in the same order.
        asker: the vendor.
    """
    if not positions:
        return students_alone(probabilities)
    said = asker.ask(queries)
    together = probabilities.astype(np.float64)
    answered_by: list[AnsweredBy] = ["student"] * len(probabilities)
    for turn, position in enumerate(positions):
        answered_by[position] = said.answered_by[turn]
    answered = [turn for turn, who in enumerate(said.answered_by) if who != "student"]
    rows = [positions[turn] for turn in answered]
    together[rows] = combined(together[rows], said.probabilities[answered])
    return Answers(together, answered_by, said.queries, said.cost_micros, said.stopped)
