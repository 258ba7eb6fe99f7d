"""One purchase: packs noted before they are sent, stored before they are counted, several in flight."""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from client.buying.budget import NOTHING, Budget, price
from client.buying.cache import EmbeddingCache, Pack
from client.buying.claim import claim
from client.buying.owed import fetch_for_dead_runs, recall
from client.buying.pace import LARGEST, Pace
from client.buying.protocols import Answer, Vendor
from client.buying.queries import Query, Spending
from client.errors import (
    ClientError,
    InputRefused,
    KeyRefused,
    QuotaExhausted,
    RequestRefused,
    RequestTooLarge,
    SpendingStopped,
    VendorError,
    VendorUnreachable,
)
from shared.embeddings import ModelCard

# Small enough that progress is seen and little is in flight; large enough that HTTP hardly counts.
PACK_SIZE = 32
# With this and the requests in flight, memory is bounded whatever the images; one larger image goes alone.
PACK_BYTES = 4 * 2**20
# What surrounds a query in a request, generously.
_OVERHEAD = 160
# After Ctrl-C, requests in flight have this many seconds to be answered; what is not stays noted as pending.
_GRACE = 2.0
# Seconds between looks at what another run is buying.
_OTHERS_TAKE = 0.1


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

    def described(self, *, cached: int) -> str:
        """The money, and what the cache had and the vendor refused, for a progress bar."""
        others = {"cached": cached, "refused": self.refused}
        return ", ".join([f"{self.cost_micros} micros", *(f"{n} {name}" for name, n in others.items() if n)])


@dataclass
class Purchase:
    """What a purchase came to.

    Attributes:
        bought: queries that were paid for and stored.
        cost_micros: what they cost, in millionths of the vendor's currency unit.
        refused: queries that could not be embedded, with the reason; not charged.
        lost: queries whose answer was lost at a vendor that cannot be asked after it: they count as paid.
        out_of_budget: whether the run's budget ended it.
    """

    bought: int = 0
    cost_micros: int = 0
    refused: dict[Query, str] = field(default_factory=dict)
    lost: int = 0
    out_of_budget: bool = False


@dataclass(frozen=True)
class _Request:
    """A pack with the bytes of its queries, whose price is set aside in the budget."""

    pack: Pack
    contents: list[bytes]
    price: Spending


class Buying:
    """A purchase in progress: what is left to buy, shared by the threads that buy it."""

    def __init__(
        self,
        vendor: Vendor,
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
        self._pace = Pace()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ready: deque[_Request] = deque()
        self._waiting: deque[Query] = deque()
        self._total = 0
        self._purchase = Purchase()
        self._errors: list[BaseException] = []

    def run(self, queries: Sequence[Query]) -> Purchase:
        """Buy until something ends it; see `Teacher.buy`."""
        fetch_for_dead_runs(self._vendor, self._cache, self._model, self._run_id, queries)
        with claim(self._cache.path, self._run_id):
            self._line_up(queries)
            # Daemons, so that a vendor that hangs cannot keep an interrupted program from ending.
            threads = [threading.Thread(target=self._work, daemon=True) for _ in range(LARGEST)]
            for thread in threads:
                thread.start()
            try:
                for thread in threads:
                    thread.join()
            except BaseException:
                self._end()
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
        """Settle what is owed from before, then list what the cache lacks."""
        at_hand = {query: query for query in queries}
        if not self._vendor.repeats_are_free:
            for pack in self._cache.pending(self._run_id):
                self._write_off(pack, reserved=NOTHING)
        uncharged: list[_Request] = []
        for pack in self._cache.pending(self._run_id):
            request = self._recall(pack, at_hand)
            if request is None or not self._ask_after(request, uncharged):
                # It may have been paid for, so it counts, for as long as nobody knows.
                self._budget.settle(NOTHING, paid=price(pack.queries, self._model.prices))
        missing = at_hand.keys() - self._cache.known(self._model.fingerprint, at_hand)
        for request in uncharged:  # now that all that was paid counts in the budget
            if not self._send_again(request, missing):
                self._cache.abandon(request.pack)
        owed = {query for request in self._ready for query in request.pack.queries}
        wanted = missing - owed
        self._waiting.extend(query for query in at_hand if query in wanted)
        self._total += len(self._waiting) + len(owed)

    def _send_again(self, request: _Request, missing: set[Query]) -> bool:
        """Line up a noted pack under its old key, if all of it is still wanted and the budget allows it.

        Under that key it is paid for once, even if the vendor is only now answering the first request.
        """
        pack, cost = request.pack, self._price(*request.pack.queries)
        wanted = pack.fingerprint == self._model.fingerprint and missing.issuperset(pack.queries)
        if not wanted or not self._budget.reserve(cost):
            return False
        self._ready.append(replace(request, price=cost))
        return True

    def _ask_after(self, request: _Request, uncharged: list[_Request]) -> bool:
        """Fetch the answer of a noted pack, or find that it was not charged; False if nobody knows.

        It is asked for at a cost of nothing: had the vendor charged it, the answer is free; had it not, the
        vendor refuses.
        """
        pack = request.pack
        try:
            answer = self._send(request, max_cost_micros=0)
        except SpendingStopped:
            uncharged.append(request)
            return True
        except KeyRefused:
            raise
        except RequestRefused:
            return False
        self._total += len(pack.queries)
        # What is answered is the present model's, whichever the pack was meant for.
        self._store(replace(request, pack=replace(pack, fingerprint=self._model.fingerprint)), answer)
        return True

    def _recall(self, pack: Pack, at_hand: Mapping[Query, Query]) -> _Request | None:
        """A pack as it was sent; `None` where one of its files is no longer what it was."""
        sent = recall(pack, at_hand)
        if sent is None:
            return None
        queries = tuple(query for query, _ in sent)
        return _Request(replace(pack, queries=queries), [content for _, content in sent], NOTHING)

    def _work(self) -> None:
        try:
            while self._pace.enter():
                answered = 0
                try:
                    request = None if self._ended.is_set() else self._next_request()
                    if request is None:
                        return
                    answered = self._buy(request)
                finally:
                    self._pace.leave(answered)
        except BaseException as error:
            self._errors.append(error)
            self._end()

    def _end(self) -> None:
        self._ended.set()
        self._pace.stop()

    def _next_request(self) -> _Request | None:
        """The next queries to send, set aside in the budget; `None` when there are none.

        Files are read here, one request at a time, so memory holds what is in flight and no more.
        """
        with self._lock:
            if self._ready:
                return self._ready.popleft()
            self._pass_over_bought()
            queries: list[Query] = []
            contents: list[bytes] = []
            room = min(self._model.limits.max_request_bytes, PACK_BYTES) - _OVERHEAD
            while self._waiting and len(queries) < min(PACK_SIZE, self._model.limits.max_inputs):
                query = self._waiting[0]
                if queries and query.kind != queries[0].kind:
                    break
                content = self._read(query)
                if content is None:
                    self._waiting.popleft()
                    continue
                room -= _size_on_the_wire(query, content)
                if (room < 0 and queries) or not self._budget.reserve(self._price(query)):
                    break
                queries.append(self._waiting.popleft())
                contents.append(content)
            return self._request(queries, contents) if queries else None

    def _pass_over_bought(self) -> None:
        """Leave out, of what comes next, what another run has bought since this one began."""
        while bought := self._cache.known(self._model.fingerprint, self._upcoming()):
            upcoming = [self._waiting.popleft() for _ in self._upcoming()]
            self._waiting.extendleft(query for query in reversed(upcoming) if query not in bought)
            self._total -= len(bought)

    def _upcoming(self) -> list[Query]:
        return list(islice(self._waiting, PACK_SIZE))

    def _request(self, queries: Sequence[Query], contents: list[bytes]) -> _Request:
        pack = pack_of(self._run_id, self._model.fingerprint, tuple(queries))
        return _Request(pack, contents, self._price(*queries))

    def _price(self, *queries: Query) -> Spending:
        return price(queries, self._model.prices)

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

    def _buy(self, request: _Request) -> int:
        """Buy one request: noted before it is sent, stored before it is counted; how many were answered."""
        if taken := self._cache.begin(request.pack):
            self._defer(request, taken)
            return 0
        try:
            answer = self._send(request, max_cost_micros=request.price.cost_micros)
        except (RequestRefused, SpendingStopped) as error:
            self._cache.abandon(request.pack)
            self._refused(request, error)
            return 0
        except VendorError as error:
            if not error.unsure and not self._vendor.repeats_are_free:
                self._cache.abandon(request.pack)  # where repeats are free, that is found out by asking
            raise
        self._store(request, answer)
        return len(answer.vectors)

    def _defer(self, request: _Request, taken: set[Query]) -> None:
        """Put off what another run is buying right now: it will be in the cache, or else be bought last."""
        self._budget.settle(request.price, paid=NOTHING)
        with self._lock:
            free = [query for query in request.pack.queries if query not in taken]
            self._waiting.extendleft(reversed(free))
            self._waiting.extend(taken)
        if not free:
            self._ended.wait(_OTHERS_TAKE)

    def _send(self, request: _Request, *, max_cost_micros: int) -> Answer:
        return self._vendor.embed(
            list(zip(request.pack.queries, request.contents, strict=True)),
            model=self._model,
            idempotency_key=request.pack.idempotency_key,
            max_cost_micros=max_cost_micros,
            on_push_back=self._pace.push_back,
            on_unsure=lambda: self._unsure(request),
        )

    def _unsure(self, request: _Request) -> None:
        """Count what may have been paid for without an answer, before it is sent, and paid for, again."""
        if not self._budget.reserve(request.price):
            raise VendorUnreachable(
                f"{self._vendor.url} does not answer, may have charged all the same, and the budget does not "
                "reach to ask again. What was bought is kept; the same command goes on."
            )
        self._write_off(request.pack, reserved=request.price)
        self._cache.begin(request.pack)

    def _write_off(self, pack: Pack, *, reserved: Spending) -> None:
        cost = self._price(*pack.queries)
        self._cache.write_off(pack, cost)
        self._budget.settle(reserved, paid=cost)
        with self._lock:
            self._purchase.lost += cost.queries

    def _store(self, request: _Request, answer: Answer) -> None:
        usage = answer.usage
        self._cache.commit(request.pack, answer.vectors, usage, answer.request_id, self._vendor.key_id)
        self._budget.settle(request.price, paid=Spending(usage.billed_queries, usage.cost_micros))
        self._count(answer)

    def _refused(self, request: _Request, error: ClientError) -> None:
        """A request that was refused, free of charge: half of it may pass where the whole is too much."""
        if isinstance(error, RequestTooLarge | InputRefused | QuotaExhausted) and len(request.contents) > 1:
            with self._lock:
                self._ready.extendleft(reversed(self._halves(request)))  # they stay set aside in the budget
            return
        self._budget.settle(request.price, paid=NOTHING)
        if not isinstance(error, RequestTooLarge | InputRefused):
            raise error
        with self._lock:
            self._purchase.refused[request.pack.queries[0]] = str(error)

    def _halves(self, request: _Request) -> list[_Request]:
        middle = len(request.contents) // 2
        return [
            self._request(request.pack.queries[part], request.contents[part])
            for part in (slice(None, middle), slice(middle, None))
        ]

    def _count(self, answer: Answer) -> None:
        with self._lock:
            purchase = self._purchase
            purchase.bought += answer.usage.billed_queries
            purchase.cost_micros += answer.usage.cost_micros
            purchase.refused.update(answer.refused)
            self._on_progress(
                Progress(purchase.bought, len(purchase.refused), self._total, purchase.cost_micros)
            )


def pack_of(run_id: str, fingerprint: str, queries: tuple[Query, ...]) -> Pack:
    """A pack under the key that the run and the content give it, the same after any restart."""
    content = "\0".join([run_id, fingerprint, *(f"{query.kind}:{query.digest}" for query in queries)])
    return Pack(hashlib.sha256(content.encode()).hexdigest(), run_id, fingerprint, queries)


def _size_on_the_wire(query: Query, content: bytes) -> int:
    """At least the bytes in a request, whatever the protocol: in JSON a text may have every byte escaped."""
    return _OVERHEAD + (len(content) * 6 if query.kind == "text" else (len(content) + 2) // 3 * 4)
