"""A request for embeddings: who asks for what, on which terms, and what its answer has taken so far."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

from shared.kinds import Counts
from vendor_service.encoder.queries import Query


def counts_of(queries: Iterable[Query]) -> Counts:
    """One of its kind for each query."""
    return Counter(each.kind for each in queries)


StepName = Literal["decode", "queue", "model", "books"]


@dataclass(frozen=True)
class Queries:
    """The queries of one request, in order, from whichever route and in whichever form they came.

    Attributes:
        items: the queries.
        body_hash: SHA-256 (hex), which tells a retry from another request.
        model: the one that was asked for, if any was.
        skip_bad: queries that cannot be served are passed over instead of failing the rest.
        param: where in the request the queries are, for error messages.
        dimensions: how long its caller believes the vectors to be.
    """

    items: Sequence[Query]
    body_hash: str
    model: str | None = None
    skip_bad: bool = False
    param: str = "inputs"
    dimensions: int | None = None

    @property
    def counts(self) -> Counts:
        """How many of each kind they are."""
        return counts_of(self.items)


@dataclass(frozen=True)
class Terms:
    """The terms on which a caller wants an answer."""

    idempotency_key: str | None = None
    max_cost_micros: int | None = None
    expect_fingerprint: str | None = None


@dataclass(frozen=True)
class Step:
    """A step of a request, which took from `began` to `ended` (nanoseconds since 1970)."""

    name: str
    began: int
    ended: int

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended - self.began) / 1e9


@dataclass
class Timing:
    """The steps of one request, in the order in which they ended; the books are asked up to three times."""

    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def timed(self, name: StepName) -> Iterator[None]:
        """Note a step that is done here."""
        began = time.time_ns()
        try:
            yield
        finally:
            self.steps.append(Step(name, began, time.time_ns()))

    def encoded(self, began: int, *, waited: float, ran: float) -> None:
        """Note that the model has answered: seconds that queries waited since `began`, and that it ran."""
        ended = time.time_ns()
        self.steps.append(Step("queue", began, began + round(1e9 * waited)))
        self.steps.append(Step("model", ended - round(1e9 * ran), ended))

    def __str__(self) -> str:
        """The value of a `Server-Timing` header, in milliseconds."""
        sums = dict.fromkeys(get_args(StepName), 0.0)
        for step in self.steps:
            sums[step.name] += step.seconds
        return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in sums.items())
