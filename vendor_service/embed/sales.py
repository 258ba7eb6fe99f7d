"""A sale: one request for embeddings, from its queries to its answer and its receipt.

The price is held, the queries are decoded and encoded, the answer is rendered, the hold is settled. Few
queries that the limits allowed a moment ago are sold in the same way with nothing held: a hold would cost
the books as much again as the charge does. What fails releases the hold, and nothing is charged.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace

from shared.errors import ErrorCode
from shared.http.capacity import while_awaited
from shared.kinds import NOTHING, Counts, Kind
from shared.receipts import RECEIPT_HEADER, Sold
from vendor_service.accounts.authentication import Caller
from vendor_service.database.tables import limited_by
from vendor_service.embed.counting import counts_of
from vendor_service.embed.models import Models, ServedModel
from vendor_service.embed.request import Queries, Request, UnbilledWork, is_vendors_own
from vendor_service.embed.results import (
    Content,
    EmbedResult,
    Render,
    largest_bytes,
    no_rows,
    receipt,
    what_was_sold,
)
from vendor_service.encoder.batches import Encoded
from vendor_service.encoder.queries import ImageQuery, Prepared, Query, Vectors
from vendor_service.errors import APIError, CommitInDoubt
from vendor_service.extraction.buckets import buckets_of
from vendor_service.extraction.recorder import Answered, Recorder
from vendor_service.metrics import Metrics
from vendor_service.money.admission import Admission
from vendor_service.money.allowance import Allowance
from vendor_service.money.orders import Admitted, Charged, Order
from vendor_service.money.precheck import Precheck
from vendor_service.money.signing import Signs

# Nothing is held for so few queries if the model answers so soon.
_FEW_QUERIES = 8
_SOON_SECONDS = 0.02
_FEW_NUMBERS = 2048  # in an answer; as JSON they take about a millisecond
_FEW_BYTES = 1 << 19  # of queries; to hash them takes about a millisecond

_log = logging.getLogger(__name__)


@dataclass
class _Sale:
    """One request on its way, of a model.

    Attributes:
        request: what is asked.
        model: who answers.
        leaving: done when the caller has hung up.
        work: what was prepared and is not paid for.
        needs_hold: whether the price must be held while the model works, however soon it answers.
        held: the order that is held, or that was paid for before.
        refused: why queries were passed over, by their indices.
    """

    request: Request
    model: ServedModel
    leaving: "asyncio.Future[None]"
    work: UnbilledWork
    needs_hold: bool = True
    held: Admitted | None = None
    refused: dict[int, APIError] = field(default_factory=dict)

    def order(self, counts: Counts) -> Order:
        """An order of so many of the queries."""
        caller, terms, facts = self.request.caller, self.request.terms, self.model.facts
        return Order(
            request_id=self.request.id,
            account_id=caller.account_id,
            key_id=caller.key_id,
            model=facts.id,
            model_fingerprint=facts.fingerprint,
            counts=counts,
            body_hash=self.request.queries.body_hash,
            idempotency_key=terms.idempotency_key,
            max_cost_micros=terms.max_cost_micros,
            secret_hash=caller.secret_hash,
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
        self,
        models: Models,
        admission: Admission,
        precheck: Precheck,
        allowance: Allowance,
        metrics: Metrics,
        signer: Signs,
        recorder: Recorder | None,
    ) -> None:
        self._models = models
        self._admission = admission
        self._precheck = precheck
        self._allowance = allowance
        self._metrics = metrics
        self._signer = signer
        self._recorder = recorder
        # The cost of the last such order that nothing was held for: by plan, model and counts.
        self._last_costs: dict[tuple[str, str, frozenset[tuple[Kind, int]]], int] = {}

    async def sell(self, request: Request, render: Render) -> tuple[EmbedResult, Content]:
        """Answer one request, in the form that `render` gives, and charge for it.

        Raises:
            APIError: for any reason of the contract; nothing is charged then.
            CommitInDoubt: the database went away before it said whether this was charged.
        """
        queries, reservation = request.queries, request.reservation
        model = self._models.find(queries.model)
        _check_fingerprint(model, request.terms.expect_fingerprint)
        if (error := refusal_by(model, queries)) is not None:
            raise error
        count = len(queries.items)
        reservation.take_bytes(largest_bytes(count, model.facts.dimensions))
        with model.in_hand(reservation.account, count):
            reservation.take_inputs(count)
            reservation.take_bytes(queries.counts.get("image", 0) * model.facts.image_bytes)
            leaving = asyncio.ensure_future(request.gone())
            sale = _Sale(request, model, leaving, UnbilledWork(count))
            try:
                await self._hold_first(sale)
                return await self._deliver(sale, render)
            finally:
                leaving.cancel()

    async def _hold_first(self, sale: _Sale) -> None:
        """Refuse, before anything is decoded, who may not buy; hold the price, if it is known and needed."""
        request, queries, caller = sale.request, sale.request.queries, sale.request.caller
        whole = sale.order(queries.counts)
        least = _least(whole) if queries.skip_bad else [whole]
        try:
            self._allowance.check(caller.account_id)
        except APIError:
            self._metrics.decided("refused")
            raise
        sale.needs_hold = not _is_small(whole, caller)
        if not sale.needs_hold and self._precheck.passes(whole, least, caller.account, caller.key):
            return
        sale.needs_hold = True
        if queries.skip_bad:  # how much is left of it, only decoding tells
            await self._ask_books(request, least)
        else:
            await self._hold(sale, whole)

    async def _deliver(self, sale: _Sale, render: Render) -> tuple[EmbedResult, Content]:
        """Decode, encode, render and charge; whatever fails gives back what is held."""
        try:
            dates = sale.model.terms.headers  # made now: whatever fails here is not charged
            accepted = await self._prepared(sale)
            if not accepted:
                result, content = await self._with_nothing_left(sale, render)
                self._count(sale)
                return result, content.with_headers(dates)
            result, content, sold, charged = await self._encode_and_charge(sale, accepted, render)
        except BaseException as error:  # a cancelled task included
            await self._abandon(sale, error)
            raise
        sale.work.answered(sale.refused)
        self._count(sale)  # what was charged does not wait for the books, nor fail with them
        sale.model.metrics.sold(result.usage, replayed=result.replayed)
        signed = receipt(self._signer, result, sold, charged)
        return result, content.with_headers({RECEIPT_HEADER: signed} | dates)

    async def _prepared(self, sale: _Sale) -> list[Prepared]:
        """The queries ready for the model, but those that are passed over."""
        request, queries = sale.request, sale.request.queries
        encoder, account = sale.model.encoder, request.reservation.account
        with request.timing.timed("decode"):
            preparing = encoder.prepare(account, queries.items, took=sale.work.took)
            prepared = await while_awaited(preparing, request.reservation, sale.leaving)
        sale.refused = {index: each for index, each in enumerate(prepared) if isinstance(each, APIError)}
        for each in sale.refused.values():
            self._metrics.refused_input(each.code)
        if sale.refused and not queries.skip_bad:
            raise refusal_of(queries, sale.refused)
        return [each for each in prepared if not isinstance(each, APIError)]

    async def _with_nothing_left(self, sale: _Sale, render: Render) -> tuple[EmbedResult, Content]:
        """The answer where every query was passed over; no hold has looked at the key and the account."""
        queries = sale.request.queries
        whole = sale.order(queries.counts)
        await self._ask_books(sale.request, _least(whole), left=replace(whole, counts=NOTHING))
        result = sale.result(no_rows(sale.model.facts), None)
        content, _ = await _rendered(render, result)
        return result, content

    async def _encode_and_charge(
        self, sale: _Sale, accepted: Sequence[Prepared], render: Render
    ) -> tuple[EmbedResult, Content, list[Sold], Charged]:
        items = sale.request.queries.items
        order = sale.order(counts_of(each for index, each in enumerate(items) if index not in sale.refused))
        encoding = asyncio.ensure_future(_encode(sale, accepted))
        encoding.add_done_callback(lambda done: done.cancelled() or done.exception())  # somebody has looked
        try:
            if sale.held is None and (sale.needs_hold or not await _is_done_soon(encoding)):
                await self._hold(sale, order)
            encoded = await while_awaited(encoding, sale.request.reservation, sale.leaving)
        finally:
            encoding.cancel()
        # Rendered before it is charged: whatever is charged is ready to be sent.
        expected = self._expected(sale, order) if sale.held is None else sale.held
        result = sale.result(encoded.rows, expected)
        content, sold = await _rendered(render, result)
        charged = expected.charged  # it is a replay
        if charged is None:
            admitted, charged = await self._charge(sale, order, result, sold)
            result = sale.result(encoded.rows, admitted)
            if admitted.cost_micros != expected.cost_micros:
                content = render(result)  # what was sold is the same
        return result, content, sold, charged

    async def _charge(
        self, sale: _Sale, order: Order, result: EmbedResult, sold: Sequence[Sold]
    ) -> tuple[Admitted, Charged]:
        """Settle what is held, or charge at once; the terms of the order, and the charge."""
        buckets = buckets_of(result.rows, result.model.fingerprint)
        try:
            with result.timing.timed("books"):
                if sale.held is not None:
                    admitted = sale.held
                    charged = await asyncio.wrap_future(
                        self._admission.settle(order.account_id, result.id, buckets)
                    )
                else:
                    admitted = await asyncio.wrap_future(self._admission.sell(order, buckets))
                    assert admitted.charged is not None
                    charged = admitted.charged
                    sale.work.admitted(order.queries)
                    self._last_costs[_kind_of(sale, order)] = admitted.cost_micros
        except CommitInDoubt as doubt:
            raise _in_doubt(order) from doubt
        except APIError:
            if sale.held is None:
                self._metrics.decided("refused")
            raise
        self._metrics.decided("settled")
        if self._recorder is not None:
            digests = [each.asked for each in sold]
            self._recorder.note(
                Answered(order.account_id, order.model_fingerprint, digests, result.rows, buckets)
            )
        return admitted, charged

    def _expected(self, sale: _Sale, order: Order) -> Admitted:
        """What such an order came to the last time."""
        cost = self._last_costs.get(_kind_of(sale, order), 0)
        return Admitted(order.request_id, order.counts, cost, False, None, None)

    async def _hold(self, sale: _Sale, order: Order) -> None:
        """Hold the price of an order, or find what was paid for before."""
        try:
            with sale.request.timing.timed("books"):
                sale.held = await asyncio.wrap_future(self._admission.admit(order))
        except APIError as error:
            self._metrics.decided("refused")
            if isinstance(error, CommitInDoubt):  # of a hold, which is no charge
                message = "the vendor's database went away; nothing was charged, try again"
                raise APIError(error.code, message, retry_after=1) from error
            raise
        self._metrics.decided("replayed" if sale.held.replayed else "held")
        sale.work.admitted(order.queries)

    async def _ask_books(self, request: Request, orders: Sequence[Order], left: Order | None = None) -> None:
        try:
            with request.timing.timed("books"):
                await asyncio.to_thread(self._precheck.check, orders, left=left)
        except APIError:
            self._metrics.decided("refused")
            raise

    async def _abandon(self, sale: _Sale, error: BaseException) -> None:
        """Release what is held, and count what was prepared for nothing."""
        if sale.held is not None:
            with suppress(APIError):  # the books are away, and the error itself is to be told
                await self._release(sale.request.caller.account_id, sale.held, error)
        sale.work.ended(error)
        counting = self._count(sale)
        if counting is not None and isinstance(error, APIError):
            with suppress(Exception):  # it is logged
                await asyncio.wrap_future(counting)

    async def _release(self, account_id: str, held: Admitted, error: BaseException) -> None:
        """Release a hold; a replay counts all the same, unless the vendor itself could not answer."""
        if not held.replayed:
            if await asyncio.wrap_future(self._admission.void(account_id, held.request_id)):
                self._metrics.decided("voided")
        elif is_vendors_own(error):
            await asyncio.wrap_future(self._admission.take_back_replay(account_id, held.request_id))

    def _count(self, sale: _Sale) -> "Future[None] | None":
        """Count against the account what was prepared and is not paid for; the future, where books do it."""
        caller, work = sale.request.caller, sale.work
        if work.cost:
            self._allowance.take(caller.account_id, work.cost)
        limited = limited_by(caller.account, caller.key)
        if not work.unrated or all(each.queries_per_second is None for each in limited):
            return None
        taking = self._admission.take_tokens(caller.account_id, caller.key_id, work.unrated)
        taking.add_done_callback(_log_failure)
        return taking


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


def _least(whole: Order) -> list[Order]:
    """The least that may be left of an order where bad inputs are passed over: one query of a kind."""
    return [replace(whole, counts={kind: 1}) for kind in whole.counts]


def _is_small(order: Order, caller: Caller) -> bool:
    """Whether nobody needs its hold: a retry under its idempotency key, or a count of requests in flight."""
    few = order.queries <= _FEW_QUERIES
    return few and order.idempotency_key is None and caller.key.concurrency is None


async def _is_done_soon(encoding: "asyncio.Future[Encoded]") -> bool:
    await asyncio.wait({encoding}, timeout=_SOON_SECONDS)
    return encoding.done()


async def _encode(sale: _Sale, accepted: Sequence[Prepared]) -> Encoded:
    began = time.time_ns()
    encoded = await sale.model.encoder.encode(sale.request.reservation.account, accepted)
    sale.request.timing.encoded(began, waited=encoded.waited, ran=encoded.ran)
    return encoded


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


def _kind_of(sale: _Sale, order: Order) -> tuple[str, str, frozenset[tuple[Kind, int]]]:
    return (sale.request.caller.account.plan, order.model, frozenset(order.counts.items()))


def _in_doubt(order: Order) -> CommitInDoubt:
    """The error where nobody knows whether an order was charged."""
    if order.idempotency_key is not None:
        return CommitInDoubt.keyed()
    rest = "charged; it may have been, and sent again it may be charged again: look at GET /v1/ledger first"
    return CommitInDoubt.unkeyed(rest)


def _log_failure(counting: "Future[None]") -> None:
    error = None if counting.cancelled() else counting.exception()
    if error is not None and not isinstance(error, APIError):  # of books that are away the database tells
        _log.error("what was prepared in vain could not be counted against a rate", exc_info=error)
