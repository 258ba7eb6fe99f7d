"""A request for embeddings, what came of it, and the receipt for that."""

import binascii
import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from shared.encoding import RowDtype, Vector, from_rows, to_rows
from shared.http.capacity import Reservation
from shared.kinds import NOTHING, Counts, Usage, count_fields
from shared.receipts import RECEIPT_TYPE, ReceiptClaims, Signs, Sold, answer_hash, request_hash, vector_digest
from vendor_service.accounts.callers import Caller
from vendor_service.clock import SECOND
from vendor_service.encoder.facts import ModelFacts
from vendor_service.encoder.queries import ImageQuery, Query, Vectors
from vendor_service.errors import APIError
from vendor_service.money.orders import Admitted, Charged


def counts_of(queries: Iterable[Query]) -> Counts:
    """One of its kind for each query."""
    return dict(Counter(each.kind for each in queries))


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

    @cached_property
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
    """The steps of one request, in the order in which they ended; the books are asked up to three times.

    Attributes:
        steps: the steps so far.
        model: the id of the model that answers, once it is found.
    """

    steps: list[Step] = field(default_factory=list)
    model: str = ""

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


@dataclass(frozen=True)
class Request:
    """One request while it is answered.

    Attributes:
        id: its own.
        caller: the account that asks, and its key.
        queries: what is asked.
        reservation: its room in memory, and its deadline.
        gone: returns when the caller has hung up.
        terms: what the caller wants of an answer.
        timing: where its time goes.
    """

    id: str
    caller: Caller
    queries: Queries
    reservation: Reservation
    gone: Callable[[], Awaitable[None]]
    terms: Terms = field(default_factory=Terms)
    timing: Timing = field(default_factory=Timing)


@dataclass(frozen=True)
class EmbedResult:
    """The answer to a request.

    Attributes:
        id: the request that pays for it.
        model: which model answered.
        queries: what was asked.
        refused: why some of the queries were passed over, by their indices.
        rows: the vectors of the others, in order, float32 of shape (rows, dimensions).
        admitted: the order that it is answered for; `None` where nothing was left to charge.
        timing: complete once the result is.
    """

    id: str
    model: ModelFacts
    queries: Queries
    refused: dict[int, APIError]
    rows: Vectors
    admitted: Admitted | None
    timing: Timing

    @property
    def answered(self) -> list[int]:
        """The indices, among the queries, of those that are answered."""
        return [index for index in range(len(self.queries.items)) if index not in self.refused]

    @property
    def usage(self) -> Usage:
        """The bill."""
        if self.admitted is None:
            return Usage.of(NOTHING, 0)
        return Usage.of(self.admitted.counts, self.admitted.cost_micros)

    @property
    def replayed(self) -> bool:
        """Whether it was paid for before."""
        return self.admitted is not None and self.admitted.replayed


def no_rows(model: ModelFacts) -> Vectors:
    """The rows of an answer in which no query is left."""
    return np.empty((0, model.dimensions), dtype=np.float32)


def what_was_sold(result: EmbedResult, dtype: RowDtype) -> list[Sold]:
    """Each answered query with digests of the query and of its vector, in `dtype` on the wire."""
    rows = result.rows if dtype == "float32" else _as_sent(result.rows, dtype)
    items = result.queries.items
    return [
        Sold(index, items[index].kind, _digest(items[index]), vector_digest(row))
        for index, row in zip(result.answered, rows, strict=True)
    ]


def receipt(
    signer: Signs, result: EmbedResult, sold: Sequence[Sold], account_id: str, charged: Charged
) -> str:
    """The signed receipt of an answer, as a compact JWS.

    A replay has the entry and the date of the first time: the same vectors bring the very same receipt.
    """
    usage = result.usage
    claims = ReceiptClaims(
        iat=charged.created_at // SECOND,
        request_id=result.id,
        request_hash=request_hash(sold),
        answer_hash=answer_hash(sold),
        model=result.model.id,
        model_fingerprint=result.model.fingerprint,
        cost_micros=usage.cost_micros,
        account_id=account_id,
        key_id=charged.key_id,
        ledger_seq=charged.seq,
        entry_hash=charged.entry_hash,
        **count_fields(usage.counts),
    )
    return signer.sign(RECEIPT_TYPE, claims)


def _digest(query: Query) -> str:
    if not isinstance(query, ImageQuery):
        content = query.text.encode(errors="surrogatepass")
    elif isinstance(query.file, bytes):
        content = query.file
    else:
        content = binascii.a2b_base64(query.file)  # it was decoded before, so it can be
    return hashlib.sha256(content).hexdigest()


def _as_sent(rows: Vector, dtype: RowDtype) -> Vector:
    return from_rows(to_rows(rows, dtype), rows.shape, dtype)
