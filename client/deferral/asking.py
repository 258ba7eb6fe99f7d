"""Asking the vendor about single images, within a budget a period that all processes share."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from client.data.domains import class_prompts
from client.data.examples import UNLABELLED, Example, read_files
from client.data.file_memory import FileMemory
from client.data.sending import as_sent
from client.deferral.answers import Answer, AnsweredBy
from client.deferral.combination import teacher_probabilities
from client.errors import ClientError, FingerprintChanged, PriceRaised
from client.learning.image_names import names_of
from client.learning.rejection import NEVER
from client.learning.student_metadata import StudentMetadata
from client.vendors.query import Query

if TYPE_CHECKING:  # what speaks HTTP is not imported before somebody is asked
    from client.purchase.purchase import PurchaseProgress
    from client.purchase.teacher import Teacher

Period = Literal["day", "month", "total"]

_DATES: dict[Period, str] = {"day": "%Y-%m-%d", "month": "%Y-%m", "total": "total"}


@dataclass(frozen=True)
class VendorAnswers:
    """What the vendor says of some images.

    Attributes:
        probabilities: the classes of each, shape (n, classes); a row that was not answered has no meaning.
        answered_by: "cache" of what was bought before, "vendor" of what was bought now, and "student" of what
            was not answered.
        rejected: which show none of the classes, shape (n,); false of those that were not answered.
        queries: how many queries were paid for.
        cost_micros: what they cost, in millionths of the vendor's currency unit.
        stopped: why some were not answered; empty where all were.
        ended: whether other images would not be answered now either: the vendor is away, or a budget is
            spent. Otherwise it refused some of these.
        price_raised: whether that is because the vendor asks more than when it was connected to.
    """

    probabilities: NDArray[np.float64]
    answered_by: list[AnsweredBy]
    rejected: NDArray[np.bool_]
    queries: int = 0
    cost_micros: int = 0
    stopped: str = ""
    ended: bool = False
    price_raised: bool = False

    @property
    def of_each(self) -> list[Answer | None]:
        """The answer about each image, with its part of the cost; `None` where there is none."""
        rows = zip(self.probabilities, self.answered_by, self.costs, self.rejected, strict=True)
        return [
            None if who == "student" else Answer(row, who, cost, bool(none)) for row, who, cost, none in rows
        ]

    @property
    def costs(self) -> list[int]:
        """The cost, shared out among the images that the vendor answered about now; it adds up to the whole.

        Class texts that were bought with them are part of it. Where these alone were bought, the first image
        that they answer bears them; without an answer to any image, nothing does.
        """
        bought = [place for place, who in enumerate(self.answered_by) if who == "vendor"]
        bearing = bought or [place for place, who in enumerate(self.answered_by) if who == "cache"][:1]
        costs = [0] * len(self.answered_by)
        if bearing:
            each, rest = divmod(self.cost_micros, len(bearing))
            for place in bearing:
                costs[place] = each
            costs[bearing[0]] += rest
        return costs


def image_query(content: bytes, name: str) -> Query:
    """The query about an image file that can be read, as training asks it, so that the cache knows it."""
    sent = as_sent(content)
    return Query("image", hashlib.sha256(sent).hexdigest(), name, lambda: sent)


def image_queries(paths: Sequence[Path], memory: FileMemory) -> list[Query]:
    """The same about files on a disk, which are read again when they are sent."""
    facts = read_files(paths, memory)
    examples = [
        Example(str(path), "", UNLABELLED, each.digest, each.file_digest, each.side)
        for path, each in zip(paths, facts, strict=True)
    ]
    return [Query("image", each.digest, each.file, each.content) for each in examples]


class Asker:
    """A vendor that is asked about images, of one student's classes. Thread-safe, and so among processes.

    Whatever processes ask through one cache in one period pay from one budget. No image is paid for twice.
    """

    def __init__(
        self,
        teacher: "Teacher",
        classes: Sequence[str],
        *,
        taught_by: str,
        temperature: float,
        budget: int | None,
        period: Period,
        patience: float,
        reject_below: float = NEVER,
        metadata: StudentMetadata | None = None,
    ) -> None:
        """Take a vendor.

        Args:
            teacher: of any run.
            classes: of the student, in the order of its probabilities.
            taught_by: the fingerprint of the model that the student learnt from; empty where none is known.
            temperature: of the teacher's answers.
            budget: queries that may be paid for in a period; `None` for no limit.
            period: a day or a month in UTC; "total" never ends.
            patience: how many seconds to wait for another process that is asking.
            reject_below: an image whose cosine to the nearest class text is lower shows none of the classes.
            metadata: what the student's file says, where it names some classes by their images.

        Raises:
            FingerprintChanged: the vendor sells another model.
            ClientError: the student's file is damaged.
        """
        model = teacher.model
        if taught_by and taught_by != model.fingerprint:
            raise FingerprintChanged(
                f"The student learnt from the model {taught_by}, and the vendor sells {model.fingerprint}: "
                "its answers do not go with the student's. Name the vendor that taught it, or distil again."
            )
        self._teacher = teacher
        self._prompts = [Query.text(prompt) for prompt in class_prompts(classes)]
        self._temperature = temperature
        self._budget = budget
        self._period = period
        self._patience = patience
        self._reject_below = reject_below
        self._names = names_of(metadata or StudentMetadata(), len(classes), model.dimensions)

    @classmethod
    def of_student(
        cls,
        teacher: "Teacher",
        classes: Sequence[str],
        metadata: StudentMetadata,
        *,
        budget: int | None,
        period: Period,
        patience: float,
        reject_below: float = NEVER,
    ) -> Self:
        """The same of a student whose file says this.

        Raises:
            FingerprintChanged: the vendor sells another model than the one that taught it.
            ClientError: the file is damaged.
        """
        return cls(
            teacher,
            classes,
            taught_by=metadata.taught_by or "",
            temperature=1.0 if metadata.teacher_temperature is None else metadata.teacher_temperature,
            budget=budget,
            period=period,
            patience=patience,
            reject_below=reject_below,
            metadata=metadata,
        )

    def recall(self, images: Sequence[Query]) -> VendorAnswers:
        """What was said of some images before; asks nobody."""
        teacher = self._of_this_period()
        known = teacher.lookup(images)[1]
        return self._answers(teacher, images, known)

    def price(self, images: Sequence[Query]) -> int:
        """What asking about some images would cost now, in millionths of the vendor's currency unit."""
        return self._of_this_period().quote([*self._prompts, *images]).cost_micros

    def ask(self, images: Sequence[Query]) -> VendorAnswers:
        """What the vendor says of images, bought where the cache lacks it, in this order.

        Where the vendor is away, refuses, or the budget ends, the rest is not answered, and it is said why.
        """
        teacher = self._of_this_period()
        _, known = teacher.lookup(images)
        queries = cost_micros = 0
        stopped, ended, price_raised = "", False, False

        def count(progress: "PurchaseProgress") -> None:  # what was paid before an error is paid all the same
            nonlocal queries, cost_micros
            queries, cost_micros = progress.bought, progress.cost_micros

        try:
            purchase = teacher.buy([*self._prompts, *images], count, patience=self._patience)
            queries, cost_micros = purchase.bought, purchase.cost_micros
            if purchase.out_of_budget:
                stopped, ended = f"the budget of {self._budget} queries {_NAMES[self._period]} is spent", True
            elif purchase.refused:
                stopped = f"the vendor refused it ({next(iter(purchase.refused.values()))})"
                # No image can be answered without the text of a class.
                ended = any(query.kind == "text" for query in purchase.refused)
        except ClientError as error:
            stopped, ended, price_raised = str(error), True, isinstance(error, PriceRaised)
        answers = self._answers(teacher, images, known)
        if "student" not in answers.answered_by:
            stopped, ended, price_raised = "", False, False
        return replace(
            answers,
            queries=queries,
            cost_micros=cost_micros,
            stopped=stopped,
            ended=ended,
            price_raised=price_raised,
        )

    def hold_owed(self, images: Sequence[Query]) -> None:
        """Hold those of some images in memory whose answers were lost: to fetch one takes its whole batch."""
        self._teacher.hold_owed(images)

    def _answers(
        self, teacher: "Teacher", images: Sequence[Query], known: NDArray[np.bool_]
    ) -> VendorAnswers:
        """What the cache has of some images, of which some were known before."""
        texts, have_texts = teacher.lookup(self._prompts)
        for number, name in self._names.items():
            texts[number] = name
        vectors, have = teacher.lookup(images)
        have &= have_texts.all()
        probabilities = np.full((len(images), len(self._prompts)), np.nan)
        rejected = np.zeros(len(images), np.bool_)
        if have.any():
            probabilities[have] = teacher_probabilities(vectors[have], texts, self._temperature)
            rejected[have] = (vectors[have] @ texts.T).max(axis=1) < self._reject_below
        answered_by: list[AnsweredBy] = [
            ("cache" if before else "vendor") if now else "student"
            for before, now in zip(known, have, strict=True)
        ]
        return VendorAnswers(probabilities, answered_by, rejected)

    def _of_this_period(self) -> "Teacher":
        """The teacher under the run id that all who ask in this period share."""
        return self._teacher.for_run(
            f"asked-{datetime.now(UTC).strftime(_DATES[self._period])}", budget=self._budget
        )

    @property
    def left(self) -> int | None:
        """How many queries of the budget are left in this period; `None` for no limit."""
        if self._budget is None:
            return None
        return max(0, self._budget - self._of_this_period().budget.committed.queries)


_NAMES: dict[Period, str] = {"day": "a day", "month": "a month", "total": "in all"}
