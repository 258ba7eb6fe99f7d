"""Sales: queries are encoded, and charged once what answers them is ready to be sent.

The price is held while the model works, and settled behind it. Few queries that it answers in a moment are
charged in one transaction behind it instead.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from shared.receipts import Sold
from vendor_service.accounts.authentication import Caller
from vendor_service.embed.receipts import what_was_sold
from vendor_service.embed.request import Render, Request
from vendor_service.embed.results import Content, EmbedResult
from vendor_service.embed.timing import Timing
from vendor_service.embed.unpaid import is_vendors_own
from vendor_service.encoder.prepared import Prepared
from vendor_service.encoder.queries import ImageQuery, Query
from vendor_service.encoder.queues import Encoded
from vendor_service.errors import APIError, CommitInDoubt
from vendor_service.extraction.buckets import buckets_of
from vendor_service.extraction.recorder import Answered, Recorder
from vendor_service.metrics import Metrics
from vendor_service.money.admission import Admission
from vendor_service.money.orders import Admitted, Charged, Order

# So few queries are charged in one transaction where the model answers so soon: a hold would cost the books
# as much again as the charge does.
_FEW_QUERIES = 8
_SOON_SECONDS = 0.02
_FEW_NUMBERS = 2048  # in an answer; as JSON they take about a millisecond
_FEW_BYTES = 1 << 19  # of queries; to hash them takes about a millisecond

T = TypeVar("T")
_Encode = Callable[[], Awaitable[Encoded]]


@dataclass(frozen=True)
class Sale:
    """An answer that was charged, rendered, with what its receipt is to say of it."""

    result: EmbedResult
    content: Content
    sold: Sequence[Sold]
    charged: Charged


class Sales:
    """Sells answers."""

    def __init__(self, admission: Admission, metrics: Metrics, recorder: Recorder | None) -> None:
        self._admission = admission
        self._metrics = metrics
        self._recorder = recorder
        # What the last such order cost that was charged at once: by plan, model, images and texts.
        self._last_costs: dict[tuple[str, str, int, int], int] = {}

    async def sell(
        self, request: Request, order: Order, accepted: Sequence[Prepared], *, allowed: bool
    ) -> Sale:
        """Encode what was accepted, and charge for the answer once it is ready to be sent.

        `allowed` is whether the limits allow the order by what is known of them without a look at the books.

        Raises:
            APIError: for any reason of the contract; nothing is charged then.
            CommitInDoubt: the database went away before it said whether this was charged.
        """
        encode = partial(_encode, request, accepted)
        if allowed and _may_be_charged_at_once(order, request.call.caller):
            return await self._sell_soon(request, order, encode)
        return await self._hold_and_settle(request, order, encode)

    async def _sell_soon(self, request: Request, order: Order, encode: _Encode) -> Sale:
        """Charge at once when the model has answered; where that takes longer, hold the price meanwhile."""
        encoding = asyncio.ensure_future(encode())
        encoding.add_done_callback(lambda done: done.cancelled() or done.exception())  # somebody has looked
        try:
            await asyncio.wait({encoding}, timeout=_SOON_SECONDS)
            if request.leaving.done():
                raise request.reservation.timed_out
            if not encoding.done():
                return await self._hold_and_settle(request, order, lambda: encoding)
            return await self._charge_at_once(request, order, encoding.result())
        finally:
            encoding.cancel()

    async def _charge_at_once(self, request: Request, order: Order, encoded: Encoded) -> Sale:
        # Rendered before it is charged, as below, with what such an order cost the last time.
        such = (request.call.caller.account.plan, order.model, order.images, order.texts)
        cost = self._last_costs.get(such, 0)
        guess = Admitted(order.request_id, order.images, order.texts, cost, False, None, None)
        result = request.result(encoded, guess)
        content, sold = await rendered(request.render, result)
        try:
            admitted = await self._charge(order, result, sold, partial(self._admission.sell, order))
        except APIError as error:
            if not isinstance(error, CommitInDoubt):
                self._metrics.decided("refused")
            raise
        request.work.admitted(order.queries)
        result = request.result(encoded, admitted)
        if admitted.cost_micros != cost:
            self._last_costs[such] = admitted.cost_micros
            content = request.render(result)  # what was sold is the same
        assert admitted.charged is not None
        return Sale(result, content, sold, admitted.charged)

    async def _hold_and_settle(self, request: Request, order: Order, encode: _Encode) -> Sale:
        admitted = await self._admit(order, request.call.timing)
        request.work.admitted(order.queries)
        try:
            result = request.result(await request.awaited(encode()), admitted)
            # Rendered before it is settled: whatever is charged is ready to be sent.
            content, sold = await rendered(request.render, result)
            charged = admitted.charged
            if charged is None:
                settle = partial(self._admission.settle, order.account_id, result.id)
                charged = await self._charge(order, result, sold, settle)
        except BaseException as error:
            # Whatever the reason, a cancelled task included.
            with suppress(APIError):  # the books are away, and the reason is what is to be told
                await self._give_up(order.account_id, admitted, error)
            raise
        return Sale(result, content, sold, charged)

    async def _give_up(self, account_id: str, admitted: Admitted, error: BaseException) -> None:
        """Release what was held; a replay counts all the same, unless the vendor itself could not answer."""
        if not admitted.replayed:
            if await asyncio.wrap_future(self._admission.void(account_id, admitted.request_id)):
                self._metrics.decided("voided")
        elif is_vendors_own(error):
            await asyncio.wrap_future(self._admission.take_back_replay(account_id, admitted.request_id))

    async def _charge(
        self,
        order: Order,
        result: EmbedResult,
        sold: Sequence[Sold],
        charge: Callable[[Collection[int]], "Future[T]"],
    ) -> T:
        """Charge for an answer that lies in some buckets, and take note of it."""
        buckets = buckets_of(result.rows, result.model.fingerprint)
        with result.timing.timed("books"):
            try:
                charged = await asyncio.wrap_future(charge(buckets))
            except CommitInDoubt as doubt:
                raise _in_doubt(order) from doubt
        self._metrics.decided("settled")
        if self._recorder is not None:
            digests = [each.asked for each in sold]
            answered = Answered(order.account_id, order.model_fingerprint, digests, result.rows, buckets)
            self._recorder.note(answered)
        return charged

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


def _may_be_charged_at_once(order: Order, caller: Caller) -> bool:
    """Whether nobody needs its hold: whoever sends its idempotency key again, or counts what is in flight."""
    few = order.queries <= _FEW_QUERIES
    return few and order.idempotency_key is None and caller.key.concurrency is None


async def _encode(request: Request, accepted: Sequence[Prepared]) -> Encoded:
    began = time.time_ns()
    encoded = await request.model.encoder.encode(request.reservation.account, accepted)
    request.call.timing.encoded(began, waited=encoded.waited, ran=encoded.ran)
    return encoded


async def rendered(render: Render, result: EmbedResult) -> tuple[Content, list[Sold]]:
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


def _in_doubt(order: Order) -> CommitInDoubt:
    """What is told where nobody knows whether an order was charged."""
    if order.idempotency_key is not None:
        return CommitInDoubt.keyed()
    rest = "charged; it may have been, and sent again it may be charged again: look at GET /v1/ledger first"
    return CommitInDoubt.unkeyed(rest)
