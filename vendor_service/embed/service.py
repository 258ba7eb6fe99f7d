"""One request, from its queries to its answer: look at the books, decode, sell, sign a receipt.

What fails is not charged.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace

import numpy as np

from shared.errors import ErrorCode
from shared.http.capacity import Reservation
from shared.receipts import RECEIPT_HEADER
from vendor_service.accounts.authentication import Caller
from vendor_service.database.tables import limited_by
from vendor_service.embed.models import Models, ServedModel
from vendor_service.embed.queries import Queries
from vendor_service.embed.receipts import receipt
from vendor_service.embed.request import Call, Render, Request
from vendor_service.embed.results import Content, EmbedResult, largest_bytes
from vendor_service.embed.sales import Sales, rendered
from vendor_service.embed.unpaid import Unpaid
from vendor_service.encoder.encoder import ModelFacts
from vendor_service.encoder.prepared import Prepared, PreparedText
from vendor_service.encoder.queries import ImageQuery
from vendor_service.errors import APIError
from vendor_service.extraction.recorder import Recorder
from vendor_service.metrics import Metrics
from vendor_service.money.admission import Admission
from vendor_service.money.allowance import Allowance
from vendor_service.money.orders import Order
from vendor_service.money.precheck import Precheck
from vendor_service.money.signing import Signs

_log = logging.getLogger(__name__)


class EmbedService:
    """Answers requests for embeddings, each by the one model that it found when it came."""

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
        self._sales = Sales(admission, metrics, recorder)

    async def embed(
        self,
        call: Call,
        queries: Queries,
        reservation: Reservation,
        render: Render,
        gone: Callable[[], Awaitable[None]],
    ) -> tuple[EmbedResult, Content]:
        """Answer one request, in the form that `render` gives; `gone` returns when its caller has hung up.

        Raises:
            APIError: for any reason of the contract; nothing is charged then.
            CommitInDoubt: the database went away before it said whether this was charged.
        """
        model = self._models.find(queries.model)
        _check(model, queries, call)
        rows = len(queries.items)
        reservation.take_bytes(largest_bytes(rows, model.facts.dimensions))
        with model.in_hand(reservation.account, rows):
            return await self._embed(model, call, queries, reservation, render, gone)

    async def _embed(
        self,
        model: ServedModel,
        call: Call,
        queries: Queries,
        reservation: Reservation,
        render: Render,
        gone: Callable[[], Awaitable[None]],
    ) -> tuple[EmbedResult, Content]:
        allowed = await self._look(model, call, queries)
        images = sum(isinstance(each, ImageQuery) for each in queries.items)
        reservation.take_inputs(len(queries.items))
        reservation.take_bytes(images * model.facts.image_bytes)
        work = Unpaid(len(queries.items))
        leaving = asyncio.ensure_future(gone())
        request = Request(model, call, queries, reservation, render, leaving, work)
        try:
            result, content = await self._answer(request, allowed=allowed)
        except APIError as error:
            work.ended(error)
            if (counting := self._count(call.caller, work)) is not None:
                with suppress(Exception):  # it is logged; the request's own error is to be told
                    await asyncio.wrap_future(counting)
            raise
        except asyncio.CancelledError:
            self._allowance.take(call.caller.account_id, work.unpaid)
            raise
        finally:
            leaving.cancel()
        self._count(call.caller, work)  # what was charged does not wait for the books, nor fail with them
        return result, content

    async def _answer(self, request: Request, *, allowed: bool) -> tuple[EmbedResult, Content]:
        """Answer and charge; `allowed` is whether the limits allow it without a look at the books."""
        call, queries, facts = request.call, request.queries, request.model.facts
        dates = request.model.terms.headers  # made now: whatever fails here is not charged
        account = request.reservation.account
        with call.timing.timed("decode"):
            preparing = request.model.encoder.prepare(account, queries.items, took=request.work.took)
            prepared = await request.awaited(preparing)
        request.refused = self._refused(queries, prepared)
        accepted = [each for each in prepared if not isinstance(each, APIError)]
        if not accepted:
            # No hold will look at the key and the account once more.
            whole, least = self._orders(facts, call, queries)
            await self._ask_books(call, least, left=replace(whole, images=0, texts=0))
            nothing = np.empty((0, facts.dimensions), dtype=np.float32)
            result = EmbedResult(call.request_id, facts, queries, request.refused, nothing, None, call.timing)
            content, _ = await rendered(request.render, result)
            return result, content.with_headers(dates)
        texts = sum(isinstance(each, PreparedText) for each in accepted)
        order = _order(facts, call, queries.body_hash, images=len(accepted) - texts, texts=texts)
        sale = await self._sales.sell(request, order, accepted, allowed=allowed)
        request.work.answered(request.refused)
        request.model.metrics.sold(sale.result.usage, replayed=sale.result.replayed)
        signed = receipt(self._signer, sale.result, sale.sold, sale.charged)
        return sale.result, sale.content.with_headers({RECEIPT_HEADER: signed} | dates)

    async def _look(self, model: ServedModel, call: Call, queries: Queries) -> bool:
        """Refuse, before anything is decoded, what admission would refuse now; whether it asked no books."""
        caller = call.caller
        try:
            self._allowance.check(caller.account_id)
        except APIError:
            self._metrics.decided("refused")
            raise
        whole, least = self._orders(model.facts, call, queries)
        if self._precheck.passes(whole, least, caller.account, caller.key):
            return True
        await self._ask_books(call, least)
        return False

    async def _ask_books(self, call: Call, orders: Sequence[Order], left: Order | None = None) -> None:
        try:
            with call.timing.timed("books"):
                await asyncio.to_thread(self._precheck.check, orders, left=left)
        except APIError:
            self._metrics.decided("refused")
            raise

    def _orders(self, model: ModelFacts, call: Call, queries: Queries) -> tuple[Order, list[Order]]:
        """The request, and where bad inputs are passed over the least that may be left of it, as orders."""
        images = sum(isinstance(each, ImageQuery) for each in queries.items)
        texts = len(queries.items) - images
        whole = _order(model, call, queries.body_hash, images=images, texts=texts)
        if not queries.skip_bad:
            return whole, [whole]
        kinds = ((1, 0), (0, 1)) if images and texts else ((min(images, 1), min(texts, 1)),)
        return whole, [replace(whole, images=i, texts=t) for i, t in kinds]

    def _count(self, caller: Caller, work: Unpaid) -> "Future[None] | None":
        """Count against the account what was prepared and is not paid for; the future, where books do it."""
        if unpaid := work.unpaid:
            self._allowance.take(caller.account_id, unpaid)
        limited = limited_by(caller.account, caller.key)
        if not work.unrated or all(each.queries_per_second is None for each in limited):
            return None
        taking = self._admission.take_tokens(caller.account_id, caller.key_id, work.unrated)
        taking.add_done_callback(_log_failure)
        return taking

    def _refused(self, queries: Queries, prepared: Sequence[Prepared | APIError]) -> dict[int, APIError]:
        refused = {index: each for index, each in enumerate(prepared) if isinstance(each, APIError)}
        for each in refused.values():
            self._metrics.refused_input(each.code)
        if refused and not queries.skip_bad:
            index, error = next(iter(refused.items()))
            error.param = f"{queries.param}.{index}.{queries.items[index].kind}"
            raise error
        return refused


def _log_failure(counting: "Future[None]") -> None:
    error = None if counting.cancelled() else counting.exception()
    if error is not None and not isinstance(error, APIError):  # of books that are away the database tells
        _log.error("what was prepared in vain could not be counted against a rate", exc_info=error)


def _check(model: ServedModel, queries: Queries, call: Call) -> None:
    facts, most = model.facts, model.terms.limits.max_inputs
    if call.expect_fingerprint not in (None, facts.fingerprint):
        message = f"the model's fingerprint is {facts.fingerprint}, not {call.expect_fingerprint}"
        raise APIError(ErrorCode.FINGERPRINT_MISMATCH, message, param="x-expect-fingerprint")
    if queries.dimensions not in (None, facts.dimensions):
        message = f"this model has {facts.dimensions} dimensions; leave them out, or reduce them yourself"
        raise APIError(ErrorCode.INVALID_REQUEST, message, param="dimensions")
    if not queries.items:
        raise APIError(ErrorCode.EMPTY_INPUT, "there are no inputs", param=queries.param)
    if len(queries.items) > most:
        message = f"a request may have {most} inputs, not {len(queries.items)}"
        raise APIError(ErrorCode.TOO_MANY_INPUTS, message, param=queries.param)


def _order(model: ModelFacts, call: Call, body_hash: str, *, images: int, texts: int) -> Order:
    return Order(
        request_id=call.request_id,
        account_id=call.caller.account_id,
        key_id=call.caller.key_id,
        model=model.id,
        model_fingerprint=model.fingerprint,
        images=images,
        texts=texts,
        body_hash=body_hash,
        idempotency_key=call.idempotency_key,
        max_cost_micros=call.max_cost_micros,
        secret_hash=call.caller.secret_hash,
    )
