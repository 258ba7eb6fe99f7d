"""Requests: the quick way to buy. A batch is one request, and is answered at once."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from client.cache.notes import Note, make_batch
from client.errors import IdempotencyKeySpent, PriceRaised, VendorError, VendorUnreachable
from client.purchase.budget import price
from client.purchase.checkout import Checkout, Order
from client.purchase.concurrency import LARGEST
from client.purchase.lifecycle import Event
from client.purchase.queue import BuyingQueue, Gone, NotCharged
from client.purchase.result import Tally
from client.vendors.declaration import Declaration
from client.vendors.query import Query
from client.vendors.transport import NO_HOOKS, Hooks
from client.vendors.vendor import EmbedResult
from shared.embeddings import Limits, Prices

# Small enough that progress is seen and little is in flight; large enough that HTTP hardly counts.
BATCH_SIZE = 32
# With this and the requests in flight, memory is bounded whatever the images; one larger image goes alone.
BATCH_BYTES = 4 * 2**20
# What surrounds a query in a request, generously.
_OVERHEAD = 160
# What was noted no longer ago than this need not be noted again when it is sent.
_JUST_NOTED_SECONDS = 1.0


class _Contents:
    """The bytes of one request, all of one kind; a parcel of the queue's."""

    def __init__(self, limits: Limits, declares: Declaration) -> None:
        self.contents: list[bytes] = []
        self._kind = ""
        self._most = min(declares.batch_queries or BATCH_SIZE, limits.max_inputs)
        self._room = min(limits.max_request_bytes, declares.batch_bytes or BATCH_BYTES) - _OVERHEAD

    def fault(self, _query: Query, _content: bytes) -> str | None:
        return None  # what is too large alone, the vendor refuses

    def fits(self, query: Query, content: bytes) -> bool:
        if not self.contents:
            return True
        small_enough = _size(query, content) <= self._room
        return small_enough and len(self.contents) < self._most and query.kind == self._kind

    def add(self, query: Query, content: bytes) -> None:
        self._kind = query.kind
        self._room -= _size(query, content)
        self.contents.append(content)


def _size(query: Query, content: bytes) -> int:
    """At least the bytes in a request, whatever the API."""
    return _OVERHEAD + query.most_in_json(content)


@dataclass
class Requests:
    """The requests of one run; a `Channel`. Thread-safe.

    Attributes:
        checkout: what is bought.
        tally: where answers are counted.
        on_push_back: called whenever the vendor says that it is asked too much.
    """

    checkout: Checkout
    tally: Tally
    on_push_back: Callable[[], None]

    @property
    def at_once(self) -> int:
        """How many requests are in flight at the most."""
        return self.checkout.vendor.declares.at_once or LARGEST

    @property
    def prices(self) -> Prices:
        """The price of one query of each kind."""
        return self.checkout.model.prices

    def pack(self, queue: BuyingQueue) -> Order | None:
        """The next request, set aside in the budget; `None` where there is none."""
        ready = queue.next_ready()
        if ready is not None:
            return ready
        parcel = _Contents(self.checkout.model.limits, self.checkout.vendor.declares)
        queries = queue.fill(parcel)
        return self.order(queries, parcel.contents) if queries else None

    def order(self, queries: Sequence[Query], contents: Sequence[bytes]) -> Order:
        """A request for queries that are set aside, with their bytes."""
        checkout, generation = self.checkout, 0
        while True:
            batch = make_batch(checkout.run_id, checkout.model.fingerprint, tuple(queries), generation)
            if not self._is_spent(batch.idempotency_key):
                break
            generation += 1
        note = Note(batch, time.time(), checkout.payer, self.prices)
        return Order(note, reserved=price(queries, self.prices), contents=contents)

    def halves(self, order: Order) -> list[Order]:
        """Two requests for the queries of one."""
        middle = len(order.contents) // 2
        return [
            self.order(order.queries[part], order.contents[part])
            for part in (slice(None, middle), slice(middle, None))
        ]

    def readable(self, queue: BuyingQueue, queries: Sequence[Query]) -> list[tuple[Query, bytes]]:
        """The queries that can be sent, with their bytes."""
        parcel = _Contents(self.checkout.model.limits, self.checkout.vendor.declares)
        contents = ((query, queue.read(query, parcel)) for query in queries)
        return [(query, content) for query, content in contents if content is not None]

    def buy(self, order: Order, *, again: bool = False) -> int:
        """As a `Channel` does, at today's price; what is bought `again` counts as nothing new.

        Raises:
            AnswerRejected: the vendor billed more than was agreed; the bill is stored.
        """
        checkout, noted_at = self.checkout, time.time()  # a clock that a computer which sleeps does not stop

        def on_try() -> None:
            if abs(time.time() - noted_at) > _JUST_NOTED_SECONDS:
                checkout.apply(order, Event.TRY)

        hooks = Hooks(on_try, self.on_push_back, lambda: self._repeat(order))
        answer = self.send(order, price(order.queries, self.prices).cost_micros, hooks)
        self.tally.store(answer, checkout.apply(order, Event.ANSWER, answer=answer), again=again)
        return len(answer.vectors)

    def finish(self) -> None:
        """As a `Channel` does: nothing is left to come."""

    def ask(self, order: Order) -> None:
        """As a `Channel` does: at a cost of nothing, which a vendor refuses that has not charged it yet."""
        if not self.checkout.vendor.declares.repeats_are_free:
            raise Gone  # nobody can ask
        try:
            answer = self.send(order, 0, NO_HOOKS)
        except PriceRaised as error:
            raise NotCharged from error
        # What is answered is this model's, whichever the request was meant for.
        part = replace(order.batch, fingerprint=self.checkout.model.fingerprint)
        paid = self.checkout.apply(order, Event.ANSWER, answer=answer, part=part)
        if order.batch.run_id == self.checkout.run_id:
            self.tally.store(answer, paid)

    def restored(self, order: Order, wanted: Mapping[Query, Query]) -> bool:
        """As a `Channel` does."""
        queries = tuple(wanted.get(query, query) for query in order.queries)
        try:
            order.contents = [query.content() for query in queries]
        except (OSError, ValueError):
            return False
        order.note = replace(order.note, batch=replace(order.batch, queries=queries))
        return True

    def send(self, order: Order, max_cost_micros: int, hooks: Hooks) -> EmbedResult:
        """Send a request, and hold what is billed against what was agreed; a bill that is wrong is stored.

        Raises:
            Gone: the key is spent.
            AnswerRejected: the vendor billed more than was agreed.
            ClientError: what `Vendor.embed` raises.
        """
        checkout, traces = self.checkout, self.checkout.traces
        asked = list(zip(order.queries, order.contents, strict=True))
        try:
            with nullcontext() if traces is None else traces.batch(len(asked)):
                answer = checkout.vendor.embed(
                    asked,
                    model=checkout.model,
                    idempotency_key=order.batch.idempotency_key,
                    max_cost_micros=max_cost_micros,
                    hooks=hooks,
                )
        except IdempotencyKeySpent as error:
            raise Gone from error
        except VendorError as error:
            if error.bill is not None:
                checkout.apply(order, Event.BILL, bill=error.bill, fault=error.fault or str(error))
            raise
        prices, cost = order.note.prices, answer.usage.cost_micros
        agreed = cost if prices is None else price(answer.vectors, prices).cost_micros
        if cost > agreed:
            raise checkout.reject(order, answer, f"billed {cost} micros, where at most {agreed} were agreed")
        return answer

    def _repeat(self, order: Order) -> None:
        """Count what may have been paid for and is sent again, where that is not free.

        Raises:
            VendorUnreachable: the budget does not reach to that.
        """
        vendor, cost = self.checkout.vendor, price(order.queries, self.prices)
        if vendor.declares.repeats_are_free:
            return
        if not self.checkout.budget.reserve(cost):
            raise VendorUnreachable(
                f"{vendor.url} does not answer, may have charged all the same, and the budget does not "
                "reach to ask again. What was bought is kept; the same command continues."
            )
        order.reserved += cost
        self.checkout.apply(order, Event.REPEAT)
        self.tally.lose(len(order.queries))

    def _is_spent(self, idempotency_key: str) -> bool:
        """Whether the vendor answers to that key no more, or another vendor or account may charge by it."""
        cache = self.checkout.cache
        note = cache.notes.find(idempotency_key)
        foreign = note is not None and not note.sent_by(self.checkout.payer)
        return foreign or cache.billed.lost(idempotency_key) > 0
