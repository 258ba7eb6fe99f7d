"""One request, from its queries to its answer: look at the books, decode, admit, encode, settle.

What fails is not charged.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from shared.errors import ErrorCode
from shared.receipts import RECEIPT_HEADER, Sold
from shared.serving.capacity import Reservation, while_awaited
from vendor_service.accounts.authentication import Caller
from vendor_service.billing.admission import Admission
from vendor_service.billing.allowance import Allowance
from vendor_service.billing.orders import Admitted, Charged, Order
from vendor_service.billing.precheck import Precheck
from vendor_service.billing.signing import Signs
from vendor_service.database.tables import limited_by
from vendor_service.embed.models import Models, ServedModel
from vendor_service.embed.queries import Queries
from vendor_service.embed.receipts import receipt, what_was_sold
from vendor_service.embed.results import Content, EmbedResult, largest_bytes
from vendor_service.embed.unpaid import Unpaid, is_vendors_own
from vendor_service.encoder.encoder import ModelFacts
from vendor_service.encoder.prepared import Prepared, PreparedText
from vendor_service.encoder.queries import ImageQuery, Query
from vendor_service.errors import APIError, CommitInDoubt
from vendor_service.extraction.buckets import buckets_of
from vendor_service.extraction.recorder import Answered, Recorder
from vendor_service.observability.metrics import Metrics
from vendor_service.observability.timing import Timing


@dataclass(frozen=True)
class Call:
    """A request apart from its body: who asks, on which terms; and where its time goes."""

    request_id: str
    caller: Caller
    timing: Timing
    idempotency_key: str | None = None
    max_cost_micros: int | None = None
    expect_fingerprint: str | None = None


_FEW_NUMBERS = 2048  # in an answer; as JSON they take about a millisecond
_FEW_BYTES = 1 << 19  # of queries; to hash them takes about a millisecond

Render = Callable[[EmbedResult], Content]


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
        self._recorder = recorder

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
        await self._look(model, call, queries)
        images = sum(isinstance(each, ImageQuery) for each in queries.items)
        reservation.take_inputs(len(queries.items))
        reservation.take_bytes(images * model.facts.image_bytes)
        work = Unpaid(len(queries.items))
        leaving = asyncio.ensure_future(gone())
        try:
            result, content = await self._answer(model, call, queries, reservation, render, leaving, work)
        except APIError as error:
            work.ended(error)
            await self._count(call.caller, work)
            raise
        except asyncio.CancelledError:
            self._allowance.take(call.caller.account_id, work.unpaid)
            raise
        finally:
            leaving.cancel()
        await self._count(call.caller, work)
        return result, content

    async def _answer(
        self,
        model: ServedModel,
        call: Call,
        queries: Queries,
        reservation: Reservation,
        render: Render,
        leaving: "asyncio.Future[None]",
        work: Unpaid,
    ) -> tuple[EmbedResult, Content]:
        timing = call.timing
        dates = model.terms.headers  # made now: whatever fails here is not charged
        with timing.timed("decode"):
            preparing = model.encoder.prepare(reservation.account, queries.items, took=work.took)
            prepared = await while_awaited(preparing, reservation, leaving)
        refused = self._refused(queries, prepared)
        accepted = [each for each in prepared if not isinstance(each, APIError)]
        facts = model.facts
        if not accepted:
            # No hold will look at the key and the account once more.
            whole, least = self._orders(facts, call, queries)
            await self._ask_books(call, least, left=replace(whole, images=0, texts=0))
            nothing = np.empty((0, facts.dimensions), dtype=np.float32)
            result = EmbedResult(call.request_id, facts, queries, refused, nothing, None, timing)
            content, _ = await _rendered(render, result)
            return result, content.with_headers(dates)
        texts = sum(isinstance(each, PreparedText) for each in accepted)
        order = _order(facts, call, queries.body_hash, images=len(accepted) - texts, texts=texts)
        admitted = await self._admit(order, timing)
        work.admitted(order.queries)
        began = time.time_ns()
        try:
            encoding = model.encoder.encode(reservation.account, accepted)
            encoded = await while_awaited(encoding, reservation, leaving)
            timing.encoded(began, waited=encoded.waited, ran=encoded.ran)
            result = EmbedResult(admitted.request_id, facts, queries, refused, encoded.rows, admitted, timing)
            # Rendered before it is settled: whatever is charged is ready to be sent.
            content, sold = await _rendered(render, result)
            charged = admitted.charged
            if charged is None:
                charged = await self._charge(order, result, sold)
        except BaseException as error:
            # Whatever the reason, a cancelled task included.
            with suppress(APIError):  # the books are away, and the reason is what is to be told
                await self._give_up(order.account_id, admitted, error)
            raise
        work.answered(refused)
        model.metrics.sold(result.usage, replayed=admitted.replayed)
        signed = receipt(self._signer, result, sold, charged)
        return result, content.with_headers({RECEIPT_HEADER: signed} | dates)

    async def _give_up(self, account_id: str, admitted: Admitted, error: BaseException) -> None:
        """Release what was held; a replay counts all the same, unless the vendor itself could not answer."""
        if not admitted.replayed:
            if await asyncio.wrap_future(self._admission.void(account_id, admitted.request_id)):
                self._metrics.decided("voided")
        elif is_vendors_own(error):
            await asyncio.wrap_future(self._admission.take_back_replay(account_id, admitted.request_id))

    async def _charge(self, order: Order, result: EmbedResult, sold: Sequence[Sold]) -> Charged:
        """Settle, and take note of what was answered."""
        buckets = buckets_of(result.rows, result.model.fingerprint)
        with result.timing.timed("books"):
            settling = self._admission.settle(order.account_id, result.id, buckets)
            try:
                charged = await asyncio.wrap_future(settling)
            except CommitInDoubt as doubt:
                raise _in_doubt(order) from doubt
        self._metrics.decided("settled")
        if self._recorder is not None:
            digests = [each.asked for each in sold]
            answered = Answered(order.account_id, order.model_fingerprint, digests, result.rows, buckets)
            self._recorder.note(answered)
        return charged

    async def _look(self, model: ServedModel, call: Call, queries: Queries) -> None:
        """Refuse, before anything is decoded, what admission would refuse now."""
        caller = call.caller
        try:
            self._allowance.check(caller.account_id)
        except APIError:
            self._metrics.decided("refused")
            raise
        whole, least = self._orders(model.facts, call, queries)
        if not self._precheck.passes(whole, least, caller.account, caller.key):
            await self._ask_books(call, least)

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

    async def _count(self, caller: Caller, work: Unpaid) -> None:
        """Count against the account what was prepared and is not paid for."""
        if unpaid := work.unpaid:
            self._allowance.take(caller.account_id, unpaid)
        limited = limited_by(caller.account, caller.key)
        if work.unrated and any(each.queries_per_second is not None for each in limited):
            with suppress(APIError):  # the books are away, and what is to be answered stands
                taking = self._admission.take_tokens(caller.account_id, caller.key_id, work.unrated)
                await asyncio.wrap_future(taking)

    def _refused(self, queries: Queries, prepared: Sequence[Prepared | APIError]) -> dict[int, APIError]:
        refused = {index: each for index, each in enumerate(prepared) if isinstance(each, APIError)}
        for each in refused.values():
            self._metrics.refused_input(each.code)
        if refused and not queries.skip_bad:
            index, error = next(iter(refused.items()))
            error.param = f"{queries.param}.{index}.{queries.items[index].kind}"
            raise error
        return refused

    async def _admit(self, order: Order, timing: Timing) -> Admitted:
        try:
            with timing.timed("books"):
                admitted = await asyncio.wrap_future(self._admission.admit(order))
        except APIError as error:
            self._metrics.decided("refused")
            if isinstance(error, CommitInDoubt):  # of a hold, which is no charge
                message = "the vendor's database went away; nothing was charged, try again"
                raise APIError(error.code, message, retry_after=1) from error
            raise
        self._metrics.decided("replayed" if admitted.replayed else "held")
        return admitted


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


def _in_doubt(order: Order) -> CommitInDoubt:
    """What is told where nobody knows whether an order was charged."""
    if order.idempotency_key is not None:
        return CommitInDoubt.keyed()
    rest = "charged; it may have been, and sent again it may be charged again: look at GET /v1/ledger first"
    return CommitInDoubt.unkeyed(rest)


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


async def _rendered(render: Render, result: EmbedResult) -> tuple[Content, list[Sold]]:
    """The content of an answer and what its receipt is to say of it.

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
