"""What is left to buy, and the requests that are made of it."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from client.cache.pending import make_batch
from client.purchase.budget import Budget, price
from client.purchase.checkout import Checkout, Request
from client.vendors.query import Query, Spending

# Small enough that progress is seen and little is in flight; large enough that HTTP hardly counts.
BATCH_SIZE = 32
# With this and the requests in flight, memory is bounded whatever the images; one larger image goes alone.
BATCH_BYTES = 4 * 2**20
# What surrounds a query in a request, generously.
_OVERHEAD = 160


class RequestQueue:
    """The queries that are left to buy, in order, and before them requests that are ready. Thread-safe.

    A request that is ready, or was taken, is set aside in the budget.

    Attributes:
        total: how many queries are wanted: what was put in, without what another one buys or has bought.
    """

    def __init__(
        self,
        checkout: Checkout,
        run_id: str,
        budget: Budget,
        refuse: Callable[[Query, str], None],
        *,
        again: bool = False,
    ) -> None:
        """Begin with nothing.

        Args:
            checkout: where they are to be paid. What its cache has got meanwhile is not asked for.
            run_id: under which requests are sent.
            budget: where requests are set aside; what it does not reach stays in the queue.
            refuse: told of a query that cannot be sent, and why.
            again: whether all is asked for, whatever the cache has.
        """
        self._cache, self._model, self._payer = checkout.cache, checkout.model, checkout.payer
        self._run_id = run_id
        self._budget = budget
        self._refuse = refuse
        self._again = again
        self._lock = threading.Lock()
        self._ready: deque[Request] = deque()
        self._waiting: deque[Query] = deque()
        self.total = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return bool(self._ready or self._waiting)

    def append(self, queries: Sequence[Query]) -> None:
        """Put queries in, behind all others."""
        with self._lock:
            self._waiting.extend(queries)
            self.total += len(queries)

    def append_ready(self, request: Request) -> None:
        """Put a request in, behind those that are ready."""
        with self._lock:
            self._ready.append(request)
            self.total += len(request.batch.queries)

    def count(self, queries: int) -> None:
        """Count so many more that were answered without having been here; or fewer, another's to buy."""
        with self._lock:
            self.total += queries

    def put_back(
        self, *, requests: Sequence[Request] = (), first: Sequence[Query] = (), last: Iterable[Query] = ()
    ) -> None:
        """Put back what was taken: requests before all others, and queries before or behind all others."""
        with self._lock:
            self._ready.extendleft(reversed(requests))
            self._waiting.extendleft(reversed(first))
            self._waiting.extend(last)

    def take(self) -> Request | None:
        """The next queries to send, set aside in the budget; `None` when there are none.

        Files are read here, one request at a time, so memory holds what is in flight and no more.
        """
        with self._lock:
            if self._ready:
                return self._ready.popleft()
            if not self._again:
                self._pass_over_bought()
            queries: list[Query] = []
            contents: list[bytes] = []
            room = min(self._model.limits.max_request_bytes, BATCH_BYTES) - _OVERHEAD
            while self._waiting and len(queries) < min(BATCH_SIZE, self._model.limits.max_inputs):
                query = self._waiting[0]
                if queries and query.kind != queries[0].kind:
                    break
                content = self.read(query)
                if content is None:
                    self._waiting.popleft()
                    continue
                room -= _size_on_the_wire(query, content)
                if (room < 0 and queries) or not self._budget.reserve(self._price(query)):
                    break
                queries.append(self._waiting.popleft())
                contents.append(content)
            return self.request(queries, contents) if queries else None

    def request(self, queries: Sequence[Query], contents: Sequence[bytes]) -> Request:
        """A request for queries, with their bytes."""
        batch = make_batch(self._run_id, self._model.fingerprint, tuple(queries))
        generation = 0
        while self._is_spent(batch.idempotency_key):
            generation += 1
            batch = make_batch(self._run_id, self._model.fingerprint, tuple(queries), generation)
        cost = self._price(*queries)
        return Request(batch, contents, cost, cost.cost_micros)

    def _is_spent(self, idempotency_key: str) -> bool:
        """Whether the vendor answers to that key no more, or another vendor or account may charge by it."""
        foreign = self._cache.pending_batches.is_foreign(idempotency_key, self._payer)
        return foreign or self._cache.billed.lost(idempotency_key) > 0

    def part(self, request: Request, places: Sequence[int]) -> Request:
        """A request for some of the queries of another one."""
        queries, contents = request.batch.queries, request.contents
        return self.request([queries[place] for place in places], [contents[place] for place in places])

    def halves(self, request: Request) -> list[Request]:
        """Two requests for the queries of one."""
        everything = range(len(request.contents))
        middle = len(everything) // 2
        return [self.part(request, part) for part in (everything[:middle], everything[middle:])]

    def read(self, query: Query) -> bytes | None:
        """A query's bytes; `None`, and a word of why, where they cannot be sent."""
        try:
            return query.sendable(self._model.limits.max_image_bytes)
        except (OSError, ValueError) as error:
            self._refuse(query, str(error))
            return None

    def _price(self, *queries: Query) -> Spending:
        return price(queries, self._model.prices)

    def _pass_over_bought(self) -> None:
        """Leave out, of what comes next, what another run has bought since this one began."""
        while bought := self._cache.known(self._model.fingerprint, self._upcoming()):
            upcoming = [self._waiting.popleft() for _ in self._upcoming()]
            self._waiting.extendleft(query for query in reversed(upcoming) if query not in bought)
            self.total -= len(bought)

    def _upcoming(self) -> list[Query]:
        return list(islice(self._waiting, BATCH_SIZE))


def _size_on_the_wire(query: Query, content: bytes) -> int:
    """At least the bytes in a request, whatever the protocol."""
    return _OVERHEAD + query.most_in_json(content)
