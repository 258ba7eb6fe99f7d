"""The teacher as the rest of the client sees it: the cache, then the budget, then the vendor."""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from client.buying.budget import Budget, Plan, Stratum, plan_purchase
from client.buying.cache import EmbeddingCache, Pack, Spending
from client.buying.queries import Query
from client.buying.vendor_api import Answer, VendorClient
from client.errors import ClientError, QuotaExhausted, RequestRefused, RequestTooLarge
from shared.embeddings import ModelCard

# Small enough that progress is seen and little is in flight; large enough that HTTP hardly counts.
PACK_SIZE = 32
IN_FLIGHT = 4
# The JSON around a query in a request, generously.
_OVERHEAD = 64
# After Ctrl-C, requests in flight have this many seconds to be answered; what is not stays noted as pending.
_GRACE = 2.0


@dataclass(frozen=True)
class Progress:
    """How far a purchase is: queries bought, refused, all that are wanted, and millionths of a unit paid."""

    bought: int
    refused: int
    total: int
    cost_micros: int

    @property
    def done(self) -> int:
        """Queries that are settled, one way or the other."""
        return self.bought + self.refused


@dataclass
class Purchase:
    """What a purchase came to.

    Attributes:
        bought: queries that were paid for and stored.
        cost_micros: what they cost, in millionths of the vendor's currency unit.
        refused: queries that could not be embedded, with the reason; not charged.
        out_of_budget: whether the run's budget ended it.
    """

    bought: int = 0
    cost_micros: int = 0
    refused: dict[Query, str] = field(default_factory=dict)
    out_of_budget: bool = False


class Teacher:
    """One model of one vendor, for one run."""

    def __init__(
        self,
        vendor: VendorClient,
        cache: EmbeddingCache,
        *,
        model: ModelCard,
        run_id: str,
        budget: int | None,
    ) -> None:
        """Connect a run to what it buys from and what it keeps.

        Args:
            vendor: where to buy.
            cache: what was bought before, by any run, and where this one stores.
            model: the model to buy from.
            run_id: names the run in receipts and idempotency keys, across its resumptions.
            budget: queries that the run may pay for in all, counting what it has paid; `None` for no limit.
        """
        self._vendor = vendor
        self._cache = cache
        self.model = model
        self._run_id = run_id
        self._limit = budget

    @property
    def budget(self) -> Budget:
        """The run's budget as its receipts leave it."""
        return Budget(self._limit, spent=self.spending.queries)

    @property
    def spending(self) -> Spending:
        """What the run has paid so far, over all its resumptions."""
        return self._cache.spending(self._run_id)

    def plan(
        self, prompts: Sequence[Query], images: Sequence[Query], strata: Sequence[Stratum], *, seed: int
    ) -> Plan:
        """What to buy of these, given what the cache has and the budget allows."""
        return plan_purchase(
            prompts,
            images,
            strata,
            cached=self._cache.known(self.model.fingerprint, [*prompts, *images]),
            budget_left=self.budget.left,
            prices=self.model.prices,
            seed=seed,
        )

    def lookup(self, queries: Sequence[Query]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """What was bought: embeddings (n, dimensions), and which rows there are (n,); the others are NaN."""
        return self._cache.rows(self.model.fingerprint, queries, self.model.dimensions)

    def buy(
        self, queries: Sequence[Query], on_progress: Callable[[Progress], None] = lambda _: None
    ) -> Purchase:
        """Buy the queries that the cache lacks, in order, until they, the budget or the quota end.

        Packs that an earlier, interrupted run left unanswered are sent again first, under their old keys.

        Raises:
            QuotaExhausted: the vendor's limit was reached; all that was paid for is stored.
            ClientError: something else ended it; all that was answered is stored, the rest noted as pending.
        """
        buying = _Buying(self._vendor, self._cache, self.model, self._run_id, self.budget, on_progress)
        return buying.run(queries)


@dataclass(frozen=True)
class _Request:
    """A pack with the bytes of its queries, which are set aside in the budget."""

    pack: Pack
    contents: list[bytes]

    def halves(self) -> list["_Request"]:
        """Two requests for half of it each, in order."""
        pack, middle = self.pack, len(self.contents) // 2
        return [
            _Request(_pack(pack.run_id, pack.fingerprint, pack.queries[part]), self.contents[part])
            for part in (slice(None, middle), slice(middle, None))
        ]


def _pack(run_id: str, fingerprint: str, queries: tuple[Query, ...]) -> Pack:
    """A pack under the key that the run and the content give it, the same after any restart."""
    content = "\0".join([run_id, fingerprint, *(f"{query.kind}:{query.digest}" for query in queries)])
    return Pack(hashlib.sha256(content.encode()).hexdigest(), run_id, fingerprint, queries)


class _Buying:
    """One purchase in progress: what is left to buy, shared by the threads that buy it."""

    def __init__(
        self,
        vendor: VendorClient,
        cache: EmbeddingCache,
        model: ModelCard,
        run_id: str,
        budget: Budget,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._vendor = vendor
        self._cache = cache
        self._model = model
        self._run_id = run_id
        self._budget = budget
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ready: deque[_Request] = deque()
        self._waiting: deque[Query] = deque()
        self._total = 0
        self._purchase = Purchase()
        self._errors: list[BaseException] = []

    def run(self, queries: Sequence[Query]) -> Purchase:
        """Buy until something ends it; see `Teacher.buy`."""
        self._line_up(queries)
        # Daemons, so that a vendor that hangs cannot keep an interrupted program from ending.
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(IN_FLIGHT)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self._ended.set()
            self._vendor.stop()
            deadline = time.monotonic() + _GRACE
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            raise
        if self._errors:
            raise self._errors[0]
        self._purchase.out_of_budget = bool(self._waiting)
        return self._purchase

    def _line_up(self, queries: Sequence[Query]) -> None:
        """Packs that are owed an answer come first; they count against the budget until they have it."""
        at_hand = {query: query for query in queries}
        for pack in self._cache.pending(self._run_id):
            fits = self._budget.reserve(len(pack.queries)) == len(pack.queries)
            if fits and (request := self._recall(pack, at_hand)):
                self._ready.append(request)
        owed = {query for request in self._ready for query in request.pack.queries}
        known = self._cache.known(self._model.fingerprint, queries)
        self._waiting.extend(query for query in at_hand if query not in known | owed)
        self._total = len(self._waiting) + len(owed)

    def _recall(self, pack: Pack, at_hand: Mapping[Query, Query]) -> _Request | None:
        """A pack to be sent again; `None` where its model or one of its files is no longer what it was.

        The files are those `at_hand`, for the folder may have moved since the pack was noted.
        """
        if pack.fingerprint != self._model.fingerprint:
            return None
        queries = tuple(at_hand.get(query, query) for query in pack.queries)
        try:
            return _Request(replace(pack, queries=queries), [query.content() for query in queries])
        except (OSError, ValueError):
            return None

    def _work(self) -> None:
        try:
            while not self._ended.is_set() and (request := self._next_request()) is not None:
                self._buy(request)
        except BaseException as error:
            self._errors.append(error)
            self._ended.set()

    def _next_request(self) -> _Request | None:
        """The next queries to send, set aside in the budget; `None` when there are none.

        Files are read here, one request at a time, so memory holds what is in flight and no more.
        """
        with self._lock:
            if self._ready:
                return self._ready.popleft()
            queries: list[Query] = []
            contents: list[bytes] = []
            room = self._model.limits.max_request_bytes - _OVERHEAD
            while self._waiting and len(queries) < min(PACK_SIZE, self._model.limits.max_inputs):
                query = self._waiting[0]
                content = self._read(query)
                if content is None:
                    self._waiting.popleft()
                    continue
                room -= _size_on_the_wire(query, content)
                if (room < 0 and queries) or not self._budget.reserve(1):
                    break
                queries.append(self._waiting.popleft())
                contents.append(content)
            if not queries:
                return None
            return _Request(_pack(self._run_id, self._model.fingerprint, tuple(queries)), contents)

    def _read(self, query: Query) -> bytes | None:
        """A query's bytes; `None`, and a reason in the purchase, where they cannot be sent."""
        try:
            content = query.content()
        except (OSError, ValueError) as error:
            self._purchase.refused[query] = str(error)
            return None
        limit = self._model.limits.max_image_bytes
        if query.kind == "image" and len(content) > limit:
            self._purchase.refused[query] = f"larger than the {limit} bytes that the vendor takes"
            return None
        return content

    def _buy(self, request: _Request) -> None:
        """Buy one request: noted before it is sent, stored before it is counted."""
        pack = request.pack
        self._cache.begin(pack)
        try:
            answer = self._vendor.embed(
                list(zip(pack.queries, request.contents, strict=True)),
                model=self._model,
                idempotency_key=pack.idempotency_key,
            )
        except (RequestRefused, QuotaExhausted) as error:
            self._cache.abandon(pack)
            self._refused(request, error)
            return
        self._cache.commit(pack, answer.vectors, answer.usage, answer.request_id, self._vendor.key_id)
        self._budget.settle(len(pack.queries), paid=answer.usage.billed_queries)
        self._count(answer)

    def _refused(self, request: _Request, error: ClientError) -> None:
        """A request that was refused, free of charge: half of it may pass where the whole is too much."""
        if isinstance(error, RequestTooLarge | QuotaExhausted) and len(request.contents) > 1:
            with self._lock:
                self._ready.extendleft(reversed(request.halves()))  # they stay set aside in the budget
            return
        self._budget.settle(len(request.contents), paid=0)
        if not isinstance(error, RequestTooLarge):
            raise error
        with self._lock:
            self._purchase.refused[request.pack.queries[0]] = str(error)

    def _count(self, answer: Answer) -> None:
        with self._lock:
            purchase = self._purchase
            purchase.bought += answer.usage.billed_queries
            purchase.cost_micros += answer.usage.cost_micros
            purchase.refused.update(answer.refused)
            self._on_progress(
                Progress(purchase.bought, len(purchase.refused), self._total, purchase.cost_micros)
            )


def _size_on_the_wire(query: Query, content: bytes) -> int:
    """Bytes in the JSON of a request or some more: an image in base64, a text with every byte escaped."""
    return _OVERHEAD + (len(content) * 6 if query.kind == "text" else (len(content) + 2) // 3 * 4)
