"""Asking the vendor about single images, within a budget a period that all processes share."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from client.data.examples import UNLABELLED, Example, read_files
from client.data.file_memory import FileMemory
from client.data.pictures import Picture
from client.data.wording import class_prompts
from client.errors import ClientError, FingerprintChanged, PriceRaised, UsageError
from client.learning.rejection import NEVER
from client.learning.student_metadata import StudentMetadata
from client.options.students import AskOptions, Period
from client.serving.answers import Answer, teacher_probabilities
from client.vendors.query import Query

if TYPE_CHECKING:  # what speaks HTTP is not imported before somebody is asked
    from client.purchase.buyer import Buyer
    from client.purchase.result import PurchaseProgress, PurchaseResult
    from client.runs.connection import Connection

# Of false rejects among what is taken for noise where nobody asked for a rate.
_NOISE_RATE = 0.05
_DATES: dict[Period, str] = {"day": "%Y-%m-%d", "month": "%Y-%m", "total": "total"}
_NAMES: dict[Period, str] = {"day": "a day", "month": "a month", "total": "in all"}


@dataclass(frozen=True)
class VendorAnswers:
    """The vendor's answers about some images, and their cost.

    Attributes:
        of_each: the answer about each image, by "cache" where it was bought before and by "vendor" where it
            was bought now, with its part of the cost; `None` where there is none.
        queries: how many queries were paid for.
        cost_micros: what they cost, in millionths of the vendor's currency unit.
        stopped: why some were not answered; empty where all were.
        ended: whether other images would not be answered now either: the vendor is away, or a budget is
            spent. Otherwise it refused some of these.
        price_raised: whether that is because the vendor asks more than when it was connected to.
    """

    of_each: list[Answer | None]
    queries: int = 0
    cost_micros: int = 0
    stopped: str = ""
    ended: bool = False
    price_raised: bool = False


def image_query(sent: bytes, name: str) -> Query:
    """The query about an image as it is sent (`as_sent`), by which the cache knows it."""
    return Query("image", hashlib.sha256(sent).hexdigest(), name, lambda: sent)


def picture_queries(pictures: Sequence[Picture], memory: FileMemory) -> list[Query]:
    """The same about pictures that have been decoded; files on a disk are read again when they are sent."""
    paths = [each.source for each in pictures if isinstance(each.source, Path)]
    files = iter(_file_queries(paths, memory))
    return [
        next(files) if isinstance(each.source, Path) else image_query(each.sent(), each.name)
        for each in pictures
    ]


def _file_queries(paths: Sequence[Path], memory: FileMemory) -> list[Query]:
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
        teacher: "Buyer",
        classes: Sequence[str],
        metadata: StudentMetadata,
        options: AskOptions,
        *,
        patience: float,
        reject_below: float = NEVER,
    ) -> None:
        """Take a vendor.

        Args:
            teacher: of any run.
            classes: of the student, in the order of its probabilities.
            metadata: what the student's file says of its teacher.
            options: say how many queries may be paid for in which period.
            patience: how many seconds to wait for another process that is asking.
            reject_below: an image whose cosine to the nearest class text is lower shows none of the classes.

        Raises:
            FingerprintChanged: the vendor sells another model than the one that taught the student.
            ClientError: the student's file is damaged.
        """
        model, taught_by = teacher.model, metadata.taught_by
        if taught_by and taught_by != model.fingerprint:
            raise FingerprintChanged(
                f"The student learnt from the model {taught_by}, and the vendor sells {model.fingerprint}: "
                "its answers do not fit the student's. Name the vendor that taught it, or distil again."
            )
        self._teacher = teacher
        self._temperature = 1.0 if metadata.teacher_temperature is None else metadata.teacher_temperature
        self._budget = options.budget
        self._period = options.period
        self._patience = patience
        self._reject_below = reject_below
        known = metadata.teacher_rejection
        usual = None if known is None else known.threshold(_NOISE_RATE)
        self._noise_below = max(reject_below, NEVER if usual is None else usual)
        self._names = metadata.names_of(len(classes), model.dimensions)
        # Only these are asked about by their texts.
        self._unnamed = [number for number in range(len(classes)) if number not in self._names]
        prompts = class_prompts(classes[number] for number in self._unnamed)
        self._prompts = [Query.text(prompt) for prompt in prompts]

    def check_budget(self) -> None:
        """See that the budget of a period answers about an image, after the class texts that it buys first.

        Raises:
            UsageError: it does not.
        """
        missing = int((~self._of_this_period().lookup(self._prompts)[1]).sum())
        if missing and self._budget is not None and self._budget <= missing:
            raise UsageError(
                f"--ask-budget {self._budget} answers about no image {_NAMES[self._period]}: {missing} class "
                f"texts are bought first. Give at least {missing + 1}."
            )

    def recall(self, images: Sequence[Query]) -> list[Answer | None]:
        """Look up earlier answers about some images; asks nobody."""
        teacher = self._of_this_period()
        return self._answers(teacher, images, teacher.lookup(images)[1])

    def price(self, images: Sequence[Query]) -> int:
        """The price of asking about some images now, in millionths of the vendor's currency unit."""
        return self._of_this_period().quote([*self._prompts, *images]).cost_micros

    def ask(self, images: Sequence[Query]) -> VendorAnswers:
        """Answer about images in this order, buying what the cache lacks.

        Where the vendor is away, refuses, or the budget ends, the rest is not answered, and it is said why.
        """
        teacher = self._of_this_period()
        _, known = teacher.lookup(images)
        said = VendorAnswers([])
        # No image can be answered without the class texts, so a quota that ends buys these first.
        for queries in filter(None, (self._prompts, images)):
            said = self._buy(teacher, queries, [*self._prompts, *images], said)
            if said.ended:
                break
        answers = _priced(self._answers(teacher, images, known), said.cost_micros)
        if None not in answers:
            return VendorAnswers(answers, said.queries, said.cost_micros)
        return replace(said, of_each=answers)

    def _buy(
        self, teacher: "Buyer", queries: Sequence[Query], used: Sequence[Query], before: VendorAnswers
    ) -> VendorAnswers:
        """Buy what the cache lacks of some queries; add its cost, and why it stopped, to what was said."""
        said = before

        def count(progress: "PurchaseProgress | PurchaseResult") -> None:
            nonlocal said  # what was paid before an error is paid all the same
            queries, cost = before.queries + progress.bought, before.cost_micros + progress.cost_micros
            said = replace(said, queries=queries, cost_micros=cost)

        try:
            purchase = teacher.buy(queries, count, patience=self._patience, used=used)
        except ClientError as error:
            raised = isinstance(error, PriceRaised)
            return replace(said, stopped=str(error), ended=True, price_raised=raised)
        count(purchase)
        if purchase.out_of_budget:
            spent = f"the budget of {self._budget} queries {_NAMES[self._period]} is spent"
            return replace(said, stopped=spent, ended=True)
        if purchase.refused:
            why = next(iter(purchase.refused.values()))
            ended = queries is self._prompts
            return replace(said, stopped=f"the vendor refused it ({why})", ended=ended)
        return said

    def hold_owed(self, images: Sequence[Query]) -> None:
        """Hold those of some images in memory whose answers were lost: to fetch one takes its whole batch."""
        self._teacher.hold_owed(images)

    @property
    def period(self) -> str:
        """The name of this period of the budget."""
        return datetime.now(UTC).strftime(_DATES[self._period])

    @property
    def left(self) -> int | None:
        """How many queries of the budget are left in this period; `None` for no limit."""
        if self._budget is None:
            return None
        return max(0, self._budget - self._of_this_period().budget.committed.queries)

    def _answers(
        self, teacher: "Buyer", images: Sequence[Query], known: NDArray[np.bool_]
    ) -> list[Answer | None]:
        """The cache's answers about some images; `known` (n,) marks those of before."""
        bought, have_texts = teacher.lookup(self._prompts)
        texts = np.empty((len(self._names) + len(bought), teacher.model.dimensions), np.float32)
        texts[self._unnamed] = bought
        for number, name in self._names.items():
            texts[number] = name
        vectors, have = teacher.lookup(images)
        have &= have_texts.all()
        answers: list[Answer | None] = [None] * len(images)
        if have.any():
            probabilities = teacher_probabilities(vectors[have], texts, self._temperature)
            nearest = (vectors[have] @ texts.T).max(axis=1)
            for place, row, score in zip(np.flatnonzero(have).tolist(), probabilities, nearest, strict=True):
                answers[place] = Answer(
                    row,
                    "cache" if known[place] else "vendor",
                    rejected=bool(score < self._reject_below),
                    is_noise=bool(score < self._noise_below),
                )
        return answers

    def _of_this_period(self) -> "Buyer":
        """The teacher under the run id that all who ask in this period share."""
        return self._teacher.for_run(f"asked-{self.period}", budget=self._budget)


def _priced(answers: Sequence[Answer | None], cost_micros: int) -> list[Answer | None]:
    """The answers with their parts of a cost, which add up to the whole.

    The images that the vendor answered about now bear it, that of the class texts among it. Where these alone
    were bought, the first image that they answer bears them; without an answer, nothing does.
    """
    bought = [place for place, each in enumerate(answers) if each and each.answered_by == "vendor"]
    bearing = bought or [place for place, each in enumerate(answers) if each][:1]
    priced = list(answers)
    for turn, place in enumerate(bearing):
        share, rest = divmod(cost_micros, len(bearing))
        answer = answers[place]
        assert answer is not None
        priced[place] = replace(answer, cost_micros=share + (0 if turn else rest))
    return priced


@contextmanager
def open_asker(
    connection: "Connection",
    ask: AskOptions,
    classes: Sequence[str],
    metadata: StudentMetadata,
    reject_below: float,
    *,
    patience: float,
) -> Iterator[Asker]:
    """Open the vendor, to be asked about images of which a student is not sure.

    Args:
        connection: where to buy.
        ask: says about which images, and what that may cost.
        classes: the student's.
        metadata: what the student's file says.
        reject_below: an image whose cosine to every class text is lower shows none of the classes.
        patience: seconds to wait for another process that asks through the same cache.
    """
    with connection.teacher(run_id="asked", budget=None, fingerprint=metadata.taught_by) as teacher:
        try:
            asker = Asker(teacher, classes, metadata, ask, patience=patience, reject_below=reject_below)
            asker.check_budget()
        except ClientError as error:
            error.paid_in_vain = (
                not teacher.vendor.declares.states_fingerprints
            )  # it was paid to show its model
            raise
        yield asker
