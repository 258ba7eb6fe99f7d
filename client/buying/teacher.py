"""The teacher as the rest of the client sees it: the cache, then the budget, then the vendor."""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

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
# The JSON around an image in a request, generously.
_OVERHEAD = 64


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
        self.budget = Budget(budget, spent=cache.spending(run_id).queries)

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
            ClientError: something else ended it; all that was paid for is stored.
        """
        return _Buying(self._vendor, self._cache, self.model, self._run_id, self.budget, on_progress).run(
            queries
        )


@dataclass(frozen=True)
class _Request:
    """A pack with the bytes of its queries, which are set aside in the budget."""

    pack: Pack
    contents: list[bytes]

    def halves(self) -> Iterator["_Request"]:
        """Two requests for half of it each, in order."""
        middle = len(self.contents) // 2
        for part in (slice(None, middle), slice(middle, None)):
            yield _Request(
                _pack(self.pack.run_id, self.pack.fingerprint, self.pack.queries[part]), self.contents[part]
            )


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
        self._waiting: deque[Query] = deque()
        self._unanswered: deque[Pack] = deque()
        self._total = 0
        self._purchase = Purchase()

    def run(self, queries: Sequence[Query]) -> Purchase:
        """Buy until something ends it; see `Teacher.buy`."""
        for pack in self._cache.pending(self._run_id):
            self._budget.reserve(len(pack.queries))
            if pack.fingerprint == self._model.fingerprint:
                self._unanswered.append(pack)
        owed = {query for pack in self._unanswered for query in pack.queries}
        known = self._cache.known(self._model.fingerprint, queries)
        self._waiting.extend(query for query in dict.fromkeys(queries) if query not in known | owed)
        self._total = len(self._waiting) + len(owed)
        with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="buying") as pool:
            workers = [pool.submit(self._work) for _ in range(IN_FLIGHT)]
            try:
                for worker in workers:
                    worker.result()
            except BaseException:
                self._ended.set()
                self._vendor.stop()
                raise
        return self._purchase

    def _work(self) -> None:
        try:
            while not self._ended.is_set() and (request := self._next_request()) is not None:
                self._buy(request)
        except BaseException:
            self._ended.set()
            raise

    def _next_request(self) -> _Request | None:
        """The next queries to send, set aside in the budget; `None` when there are none.

        Files are read here, one request at a time, so memory holds what is in flight and no more.
        """
        with self._lock:
            while self._unanswered:
                pack = self._unanswered.popleft()
                contents = [content for query in pack.queries if (content := self._read(query)) is not None]
                if len(contents) == len(pack.queries):
                    return _Request(pack, contents)
            queries: list[Query] = []
            contents = []
            room = self._model.limits.max_request_bytes - _OVERHEAD
            while self._waiting and len(queries) < min(PACK_SIZE, self._model.limits.max_inputs):
                content = self._read(self._waiting[0])
                if content is None:
                    self._waiting.popleft()
                    continue
                room -= _size_on_the_wire(content)
                if room < 0 and queries:
                    break
                if not self._budget.reserve(1):
                    self._purchase.out_of_budget = True
                    break
                queries.append(self._waiting.popleft())
                contents.append(content)
            return (
                _Request(_pack(self._run_id, self._model.fingerprint, tuple(queries)), contents)
                if queries
                else None
            )

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
            self._budget.settle(len(pack.queries), paid=0)
            self._refused(request, error)
            return
        self._cache.commit(pack, answer.vectors, answer.usage, answer.request_id)
        self._budget.settle(len(pack.queries), paid=answer.usage.billed_queries)
        self._count(answer)

    def _refused(self, request: _Request, error: ClientError) -> None:
        """A request that was refused, free of charge: half of it may pass where the whole is too much."""
        if not isinstance(error, RequestTooLarge | QuotaExhausted):
            raise error
        if len(request.contents) > 1:
            for half in request.halves():
                if self._budget.reserve(len(half.contents)) < len(half.contents):
                    raise error  # cannot be: what was set aside has just been given back
                self._buy(half)
        elif isinstance(error, QuotaExhausted):
            raise error
        else:
            with self._lock:
                self._purchase.refused[request.pack.queries[0]] = str(error)

    def _count(self, answer: Answer) -> None:
        with self._lock:
            purchase = self._purchase
            purchase.bought += answer.usage.billed_queries
            purchase.cost_micros += answer.usage.cost_micros
            purchase.refused.update(answer.refused)
            progress = Progress(purchase.bought, len(purchase.refused), self._total, purchase.cost_micros)
        self._on_progress(progress)


def _size_on_the_wire(content: bytes) -> int:
    """Bytes of base64 in JSON; more than a text takes, unless it is all quotes and control characters."""
    return len(content) * 4 // 3 + _OVERHEAD
