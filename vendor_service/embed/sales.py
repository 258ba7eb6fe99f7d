"""A sale: one request for embeddings, from its queries to its answer and its receipt.

The price is held, the queries are decoded and encoded, the answer is rendered, the hold is settled. What
fails releases the hold, and nothing is charged.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from shared.errors import ErrorCode
from shared.http.capacity import while_awaited
from shared.kinds import Counts
from shared.receipts import RECEIPT_HEADER, Signs, Sold
from vendor_service.embed.dialects import Content, Render, largest_bytes
from vendor_service.embed.models import Models, ServedModel
from vendor_service.embed.request import (
    EmbedResult,
    Queries,
    Request,
    counts_of,
    no_rows,
    receipt,
    what_was_sold,
)
from vendor_service.encoder.queries import ImageQuery, Prepared, Query, Vectors
from vendor_service.errors import APIError
from vendor_service.extraction.recorder import Answered, Recorder, buckets_of
from vendor_service.metrics import Metrics
from vendor_service.money.checkout import Checkout, Sale
from vendor_service.money.orders import Admitted, Order

_FEW_NUMBERS = 2048  # in an answer; as JSON they take about a millisecond
_FEW_BYTES = 1 << 19  # of queries; to hash them takes about a millisecond


@dataclass
class _Answer:
    """One request on its way, to be answered by a model.

    Attributes:
        request: what is asked.
        model: who answers.
        leaving: done when the caller has hung up.
        refused: why queries were passed over, by their indices.
    """

    request: Request
    model: ServedModel
    leaving: "asyncio.Future[None]"
    refused: dict[int, APIError] = field(default_factory=dict)

    @property
    def counts(self) -> Counts:
        """How many queries of each kind are answered."""
        queries = self.request.queries
        if not self.refused:
            return queries.counts
        return counts_of(each for index, each in enumerate(queries.items) if index not in self.refused)

    @property
    def order(self) -> Order:
        """The whole request as an order."""
        caller, terms, facts = self.request.caller, self.request.terms, self.model.facts
        queries = self.request.queries
        return Order(
            request_id=self.request.id,
            account_id=caller.account_id,
            key_id=caller.key_id,
            model=facts.id,
            model_fingerprint=facts.fingerprint,
            counts=queries.counts,
            body_hash=queries.body_hash,
            idempotency_key=terms.idempotency_key,
            max_cost_micros=terms.max_cost_micros,
            secret_hash=caller.secret_hash,
            may_shrink=queries.skip_bad,
        )

    def result(self, rows: Vectors, admitted: Admitted | None) -> EmbedResult:
        """The answer, on the terms of an order."""
        paid_by = self.request.id if admitted is None else admitted.request_id
        timing = self.request.timing
        return EmbedResult(
            paid_by, self.model.facts, self.request.queries, self.refused, rows, admitted, timing
        )


class Sales:
    """Sells answers, each by the one model that was served when its request came."""

    def __init__(
        self, models: Models, checkout: Checkout, metrics: Metrics, signer: Signs, recorder: Recorder | None
    ) -> None:
        self._models = models
        self._checkout = checkout
        self._metrics = metrics
        self._signer = signer
        self._recorder = recorder

    async def sell(self, request: Request, render: Render) -> tuple[EmbedResult, Content]:
        """Answer one request, in the form that `render` gives, and charge for it.

        Raises:
            APIError: for any reason of the contract; nothing is charged then.
            CommitInDoubt: the database went away before it said whether this was charged.
        """
        queries, reservation, caller = request.queries, request.reservation, request.caller
        model = self._models.find(queries.model)
        request.timing.model = model.facts.id
        _check_fingerprint(model, request.terms.expect_fingerprint)
        if (error := refusal_by(model, queries)) is not None:
            raise error
        count = len(queries.items)
        reservation.take_bytes(largest_bytes(count, model.facts.dimensions))
        with model.in_hand(reservation.account, count):
            reservation.take_inputs(count)
            reservation.take_bytes(queries.counts.get("image", 0) * model.facts.image_bytes)
            leaving = asyncio.ensure_future(request.gone())
            answer, timed = _Answer(request, model, leaving), partial(request.timing.timed, "books")
            try:
                holding = self._checkout.hold(answer.order, caller.account, caller.key, timed)
                async with await holding as sale:
                    return await self._deliver(answer, sale, render)
            finally:
                leaving.cancel()

    async def _deliver(self, answer: _Answer, sale: Sale, render: Render) -> tuple[EmbedResult, Content]:
        """Decode, encode, render and charge; whatever fails before the charge is not charged."""
        dates = answer.model.terms.headers
        rows = await while_awaited(self._rows(answer, sale), answer.request.reservation, answer.leaving)
        answered = answer.counts
        if not len(rows):
            await sale.settle(answered, answer.refused)
            result = answer.result(rows, None)
            content, _ = await _rendered(render, result)
            return result, content.with_headers(dates)
        # Rendered before it is charged: whatever is charged is ready to be sent.
        expected = sale.expected(answered)
        result = answer.result(rows, expected)
        content, sold = await _rendered(render, result)
        buckets = buckets_of(rows, answer.model.facts.fingerprint)
        admitted = await sale.settle(answered, answer.refused, buckets)
        result = answer.result(rows, admitted)
        if admitted.cost_micros != expected.cost_micros:
            content = render(result)  # what was sold is the same
        return result, content.with_headers(self._sold(answer, result, sold, buckets) | dates)

    async def _rows(self, answer: _Answer, sale: Sale) -> Vectors:
        """The vectors of the queries that can be answered, decoded and encoded."""
        accepted = await self._prepared(answer, sale)
        if not accepted:
            return no_rows(answer.model.facts)
        return await sale.during(partial(_encode, answer, accepted), answer.counts)

    async def _prepared(self, answer: _Answer, sale: Sale) -> list[Prepared]:
        """The queries ready for the model, but those that are passed over."""
        request, queries = answer.request, answer.request.queries
        with request.timing.timed("decode"):
            prepared = await answer.model.encoder.prepare(
                request.reservation.account, queries.items, took=sale.took
            )
        answer.refused = {index: each for index, each in enumerate(prepared) if isinstance(each, APIError)}
        for each in answer.refused.values():
            self._metrics.refused_input(each.code)
        if answer.refused and not queries.skip_bad:
            raise refusal_of(queries, answer.refused)
        return [each for each in prepared if not isinstance(each, APIError)]

    def _sold(
        self, answer: _Answer, result: EmbedResult, sold: Sequence[Sold], buckets: Sequence[int]
    ) -> dict[str, str]:
        """Take note of an answer that was charged; its receipt, as a header."""
        assert result.admitted is not None
        assert result.admitted.charged is not None
        facts, replayed, account_id = answer.model.facts, result.replayed, answer.request.caller.account_id
        if self._recorder is not None and not replayed:
            digests = [each.asked for each in sold]
            self._recorder.note(Answered(account_id, facts.fingerprint, digests, result.rows, buckets))
        answer.model.metrics.sold(result.usage, replayed=replayed)
        return {RECEIPT_HEADER: receipt(self._signer, result, sold, account_id, result.admitted.charged)}


def refusal_by(model: ServedModel, queries: Queries) -> APIError | None:
    """Why a model does not answer these queries, where that shows before anything is prepared."""
    dimensions, most = model.facts.dimensions, model.terms.limits.max_inputs
    if queries.dimensions not in (None, dimensions):
        message = f"this model has {dimensions} dimensions; leave them out, or reduce them yourself"
        return APIError(ErrorCode.INVALID_REQUEST, message, param="dimensions")
    if not queries.items:
        return APIError(ErrorCode.EMPTY_INPUT, "there are no inputs", param=queries.param)
    if len(queries.items) > most:
        message = f"a request may have {most} inputs, not {len(queries.items)}"
        return APIError(ErrorCode.TOO_MANY_INPUTS, message, param=queries.param)
    return None


def refusal_of(queries: Queries, refused: dict[int, APIError]) -> APIError:
    """Why a request is refused of which some queries are: the first of their errors, with its place."""
    index, error = next(iter(refused.items()))
    return APIError(error.code, error.message, param=f"{queries.param}.{index}.{queries.items[index].kind}")


def _check_fingerprint(model: ServedModel, expected: str | None) -> None:
    if expected not in (None, model.facts.fingerprint):
        message = f"the model's fingerprint is {model.facts.fingerprint}, not {expected}"
        raise APIError(ErrorCode.FINGERPRINT_MISMATCH, message, param="x-expect-fingerprint")


async def _encode(answer: _Answer, accepted: Sequence[Prepared]) -> Vectors:
    began = time.time_ns()
    encoded = await answer.model.encoder.encode(answer.request.reservation.account, accepted)
    answer.request.timing.encoded(began, waited=encoded.waited, ran=encoded.ran)
    return encoded.rows


async def _rendered(render: Render, result: EmbedResult) -> tuple[Content, list[Sold]]:
    """The content of an answer, and its queries and vectors as digests for the receipt.

    Made beside the event loop unless that takes longer to ask for than to do.
    """

    def work() -> tuple[Content, list[Sold]]:
        content = render(result)
        return content, what_was_sold(result, content.dtype)

    if result.rows.size <= _FEW_NUMBERS and _size(result.queries.items) <= _FEW_BYTES:
        return work()
    return await asyncio.to_thread(work)


def _size(queries: Sequence[Query]) -> int:
    return sum(len(each.file if isinstance(each, ImageQuery) else each.text) for each in queries)
