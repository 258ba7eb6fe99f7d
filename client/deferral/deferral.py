"""Answers about images: the student's, and where it is unsure those of student and vendor together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.buying.queries import Query
from client.deferral.asking import AnsweredBy, Asker
from client.deferral.combination import combined
from client.learning.rejection import NEVER, shows_none


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

    There the vendor decides whether an image shows none of the classes, for it tells that much better
    (docs/experiments.md).

    Args:
        own: the student's.
        positions: of the images to ask about, those that matter most first.
        queries: their queries, in the same order.
        asker: the vendor.
    """
    if not positions:
        return own
    said = asker.ask(queries)
    together, rejected = own.probabilities.astype(np.float64), own.rejected.copy()
    answered_by = list(own.answered_by)
    for turn, position in enumerate(positions):
        answered_by[position] = said.answered_by[turn]
    answered = [turn for turn, who in enumerate(said.answered_by) if who != "student"]
    rows = [positions[turn] for turn in answered]
    together[rows] = combined(together[rows], said.probabilities[answered])
    rejected[rows] = said.rejected[answered]
    return Answers(together, answered_by, rejected, said.queries, said.cost_micros, said.stopped)
