"""Buying by requests: batches noted before they are sent, stored before they count, several in flight."""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial

from client.cache.bulk_notes import being_bought
from client.cache.cache import EmbeddingCache
from client.cache.pending import Payer, PendingBatch, RequestBatch
from client.errors import (
    ClientError,
    IdempotencyKeySpent,
    InputRefused,
    QuotaExhausted,
    RequestRefused,
    RequestTooLarge,
    SpendingStopped,
    VendorError,
    VendorUnreachable,
)
from client.purchase import vendor_check as trust
from client.purchase.budget import NOTHING, Budget, price
from client.purchase.checkout import Checkout, Request
from client.purchase.concurrency import LARGEST, ConcurrencyLimiter
from client.purchase.lock import is_locked, run_lock
from client.purchase.purchase import PurchaseProgress, PurchaseResult
from client.purchase.recovery import DeadRuns, Undecided, may_cost
from client.purchase.request_queue import RequestQueue
from client.purchase.settlement import Settlement
from client.vendors.query import Query, Spending
from client.vendors.tracing import Traces
from client.vendors.vendor import EmbedResult, Vendor
from shared.embeddings import ModelCard

# After Ctrl-C, requests in flight have this many seconds to be answered; what is not stays noted as pending.
_GRACE = 2.0
# Seconds between looks at what another run is buying.
_OTHERS_TAKE = 0.1


class Purchaser:
    """A purchase in progress: what is left to buy, shared by the threads that buy it."""

    def __init__(
        self,
        vendor: Vendor,
        cache: EmbeddingCache,
        model: ModelCard,
        run_id: str,
        budget: Budget,
        on_progress: Callable[[PurchaseProgress], None],
        say: Callable[[str], None] = lambda _: None,
        traces: Traces | None = None,
    ) -> None:
        self._vendor = vendor
        self._cache = cache
        self._model = model
        self._run_id = run_id
        self._budget = budget
        self._on_progress = on_progress
        self._say = say
        self._checkout = Checkout(vendor, cache, model, traces)
        self._limiter = ConcurrencyLimiter()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._settlement = Settlement(
            self._checkout,
            budget,
            store=self._store_owed,
            give_up=self._give_up,
            wait=self._ended.wait,
            say=say,
        )
        self._dead_runs = DeadRuns(self._checkout, run_id, say, undecided=self._settlement.undecided)
        self._at_hand: dict[Query, Query] = {}
        self._queue = RequestQueue(self._checkout, run_id, budget, self._not_sent)
        self._in_jobs: set[Query] = set()
        self._purchase = PurchaseResult()
        self._errors: list[BaseException] = []

    def run(self, queries: Sequence[Query], used: Collection[Query]) -> PurchaseResult:
        """Buy until something ends it; see `Teacher.buy`."""
        self._recover(queries)
        with run_lock(self._cache.path, self._run_id):
            # What another process paid for this run until now counts as well.
            self._budget.catch_up(self._cache.spending(self._run_id))
            self._line_up()
            buys = bool(self._queue)
            check = trust.VendorCheck(self._cache, self._model, self._vendor.url)
            if check.passes(used, buys=buys, compare=self._compare, say=self._say):
                self._buy_all()
            else:
                self._purchase.uncompared = True
        if self._errors:
            raise self._errors[0]
        self.require_told()
        self._require_no_jobs()
        self._purchase.out_of_budget = self._purchase.uncompared or bool(self._queue)
        return self._purchase

    @property
    def undecided(self) -> Undecided:
        """Queries that may have been paid for, and of which the vendor does not tell."""
        return self._settlement.undecided

    def settle(self, queries: Sequence[Query]) -> PurchaseResult:
        """Settle what was sent before, so that what is missing can be bought in another way; buys nothing.

        What the vendor may still be answering is waited for. What it does not tell of is `undecided`.
        """
        self._recover(queries)
        with run_lock(self._cache.path, self._run_id):
            self._budget.catch_up(self._cache.spending(self._run_id))
            uncharged = self._settlement.settle(self._run_id, self._at_hand)
            missing = self._missing()
            for request, note in uncharged:
                self._settlement.forget(request, note, missing)
        return self._purchase

    def require_told(self) -> None:
        """Raise where the vendor does not tell of something that may have been paid for.

        Raises:
            VendorError: what it is; SpendingStopped: the account may spend nothing.
        """
        if self.undecided:
            raise self._settlement.not_told()

    def _require_no_jobs(self) -> None:
        """Raise where something is left to bulk jobs that were begun meanwhile."""
        fingerprint = self._model.fingerprint
        left = self._in_jobs - self._cache.known(fingerprint, self._in_jobs)
        if left:
            notes = self._cache.bulk_notes.of_model(self._checkout.origin, fingerprint)
            raise being_bought([note for note in notes if not left.isdisjoint(note.queries)])

    def _recover(self, queries: Sequence[Query]) -> None:
        """Fetch what runs that were killed had paid for."""
        self._at_hand = {query: query for query in queries}
        self._dead_runs.recover(self._at_hand, self._missing())

    def compare_stranger(self, used: Collection[Query]) -> None:
        """Compare the vendor with what is known of these, as `run` does; buys nothing else. Settle first.

        Raises:
            BudgetExhausted: the budget does not reach to that.
            AnswerRejected: they do not agree.
        """
        with run_lock(self._cache.path, self._run_id):
            self._budget.catch_up(self._cache.spending(self._run_id))
            check = trust.VendorCheck(self._cache, self._model, self._vendor.url)
            buys = bool(self._missing())
            compared = check.passes(used, buys=buys, compare=self._compare, say=self._say)
        self._purchase.uncompared = not compared
        self._purchase.require_compared(self._budget)

    def _buy_all(self) -> None:
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

    def _line_up(self) -> None:
        """Settle what is owed from before, then list what the cache lacks."""
        at_hand = self._at_hand
        uncharged: list[tuple[Request, PendingBatch]] = []
        if self._vendor.repeats_are_free:
            uncharged = self._settlement.settle(self._run_id, at_hand)
        else:
            self._write_off_own()
        missing = self._missing()
        owed: set[Query] = set()
        for request, note in uncharged:  # now that all that was paid counts in the budget
            if self._send_again(request, missing):
                owed.update(request.batch.queries)
            else:
                self._settlement.forget(request, note, missing)
        wanted = self._missing() - owed
        self._queue.append([query for query in at_hand if query in wanted])

    def _write_off_own(self) -> None:
        """Count as paid what was sent before to a vendor that cannot be asked after it."""
        payer = self._checkout.payer
        for note in self._cache.pending_batches.of_run(self._run_id):
            if note.sent_by(payer):
                cost = may_cost(note, self._model.prices, self._cache.billed)
                self._write_off(note.batch, cost, payer, reserved=NOTHING)
            else:
                self._settlement.count_as_paid(note)

    def _missing(self) -> set[Query]:
        """What the cache lacks, and may be bought without being paid for twice."""
        known = self._cache.known(self._model.fingerprint, self._at_hand)
        return self._at_hand.keys() - known - self.undecided.keys()

    def _send_again(self, request: Request, missing: set[Query]) -> bool:
        """Line up a noted batch under its old key, if all of it is still wanted and the budget allows it.

        Under that key it is paid for once, even if the vendor is only now answering the first request.
        """
        batch, cost = request.batch, self._price(*request.batch.queries)
        wanted = batch.fingerprint == self._model.fingerprint and missing.issuperset(batch.queries)
        if not wanted or not self._budget.reserve(cost):
            return False
        self._queue.append_ready(replace(request, price=cost))
        return True

    def _compare(self, sample: Sequence[Query]) -> bool:
        """Buy some known queries again, and compare the answers; False where the budget reaches to none.

        Raises:
            AnswerRejected: they do not agree with what is known.
        """
        contents = {query: self._queue.read(query) for query in sample}
        readable = [(query, content) for query, content in contents.items() if content is not None]
        while readable:
            request = self._queue.request(
                [query for query, _ in readable], [content for _, content in readable]
            )
            if self._budget.reserve(request.price):
                self._buy(request, again=True)
                return True
            readable.pop()
        return not any(content is not None for content in contents.values())

    def _work(self) -> None:
        try:
            while self._limiter.acquire():
                answered = 0
                try:
                    request = None if self._ended.is_set() else self._queue.take()
                    if request is None:
                        return
                    answered = self._buy(request)
                finally:
                    self._limiter.release(answered)
        except BaseException as error:
            self._errors.append(error)
            self._end()

    def _end(self) -> None:
        self._ended.set()
        self._limiter.stop()

    def _price(self, *queries: Query) -> Spending:
        return price(queries, self._model.prices)

    def _buy(self, request: Request, *, again: bool = False) -> int:
        """Buy one request: noted before it is sent, stored before it is counted; how many were answered.

        The note is dropped where no try of it can have been served. Otherwise it stays, and what it may cost
        stays set aside: a later run asks after it.
        """
        batch = request.batch
        taken = self._cache.begin(
            batch,
            payer=self._checkout.payer,
            agreed_micros=max(request.price.cost_micros, request.agreed_micros or 0),
            again=again,
            alive=partial(is_locked, self._cache.path),
            asked=self._dead_runs.asked if self._vendor.repeats_are_free else None,
        )
        if taken:
            self._defer(request, taken)
            return 0
        try:
            answer = self._checkout.buy(
                request,
                on_push_back=self._limiter.push_back,
                on_unsure=lambda: self._unsure(request),
            )
        except IdempotencyKeySpent:
            payer = self._checkout.payer
            note = PendingBatch(batch, time.time(), payer.vendor, payer.key_id)
            self._give_up(note, reserved=request.price)
            self._queue.put_back(first=() if again else batch.queries)
            return 0
        except (VendorError, SpendingStopped) as error:
            if error.unsure or request.doubtful:
                if self._vendor.repeats_are_free:
                    self._cache.pending_batches.refresh(batch)
                raise
            self._cache.abandon(batch, error.request_id, self._vendor.key_id)
            if not isinstance(error, RequestRefused | SpendingStopped):
                raise
            self._refused(request, error, again=again)
            return 0
        self._store(request, answer, again=again)
        return len(answer.vectors)

    def _defer(self, request: Request, taken: set[Query]) -> None:
        """Put off what another run is buying right now: it will be in the cache, or else be bought last.

        What a run that was killed may have paid for is asked after first.
        """
        queries = request.batch.queries
        places = [place for place, query in enumerate(queries) if query not in taken]
        free = self._queue.part(request, places) if places else None
        self._budget.settle(request.price - (free.price if free else NOTHING), paid=NOTHING)
        self._dead_runs.recover(self._at_hand, taken, only_past=True)
        in_jobs = self._cache.bulk_notes.held_now(self._checkout.payer, self._model.fingerprint, taken)
        left_out = in_jobs | (taken & self.undecided.keys())
        later = [query for query in queries if query in taken and query not in left_out]
        self._queue.put_back(requests=[free] if free else [], last=later)  # what is free stays set aside
        self._queue.count(-len(left_out))
        with self._lock:
            self._in_jobs |= in_jobs
        if not free:
            self._ended.wait(_OTHERS_TAKE)

    def _unsure(self, request: Request) -> None:
        """Count what may have been paid for and is sent again, where that is not free."""
        if self._vendor.repeats_are_free:
            return
        if not self._budget.reserve(request.price):
            raise VendorUnreachable(
                f"{self._vendor.url} does not answer, may have charged all the same, and the budget does not "
                "reach to ask again. What was bought is kept; the same command goes on."
            )
        self._write_off(request.batch, request.price, self._checkout.payer, reserved=request.price)
        self._cache.begin(request.batch, payer=self._checkout.payer, again=True)

    def _give_up(self, note: PendingBatch, *, reserved: Spending = NOTHING) -> None:
        """Count a batch as paid whose answer is no longer to be had; it is bought anew under another key."""
        batch, payer = note.batch, note.sender(self._checkout.payer)
        if self._cache.billed.is_answered(note):  # it counts already, and nothing is lost
            self._cache.write_off(batch, NOTHING, payer)
            self._budget.settle(reserved, paid=NOTHING)
            return
        cost = may_cost(note, self._model.prices, self._cache.billed)
        self._write_off(batch, cost, payer, reserved=reserved)
        self._say(
            f"{len(batch.queries)} queries may have been paid for before, and the vendor no longer answers "
            "them under the key of that time. They count as paid, and are bought again as far as the "
            "budget reaches."
        )

    def _write_off(self, batch: RequestBatch, cost: Spending, payer: Payer, *, reserved: Spending) -> None:
        self._cache.write_off(batch, cost, payer)
        self._budget.settle(reserved, paid=cost)
        with self._lock:
            self._purchase.lost += len(batch.queries)

    def _store_owed(self, request: Request, answer: EmbedResult) -> None:
        self._queue.count(len(request.batch.queries))
        paid = self._stored(request, answer)
        # Its bill may count already, as that of an answer which could not be taken.
        self._budget.catch_up(self._cache.spending(self._run_id))
        self._count(answer, paid)

    def _store(self, request: Request, answer: EmbedResult, *, again: bool = False) -> None:
        paid = self._stored(request, answer)
        self._budget.settle(request.price, paid=paid)
        self._count(answer, paid, again=again)

    def _stored(self, request: Request, answer: EmbedResult) -> Spending:
        """Store an answer; what was paid for it: nothing where it repeats one that was stored before."""
        is_new = self._checkout.store(request.batch, answer)
        return Spending(answer.usage.billed_queries, answer.usage.cost_micros) if is_new else NOTHING

    def _refused(self, request: Request, error: ClientError, *, again: bool) -> None:
        """A request that was refused, free of charge: half of it may pass where the whole is too much."""
        too_much = isinstance(error, RequestTooLarge | InputRefused)
        if (too_much or (isinstance(error, QuotaExhausted) and not again)) and len(request.contents) > 1:
            halves = self._queue.halves(request)  # they stay set aside in the budget
            if not again:
                self._queue.put_back(requests=halves)
                return
            for half in halves:
                self._buy(half, again=True)
            return
        self._budget.settle(request.price, paid=NOTHING)
        if not too_much:
            raise error
        self._not_sent(request.batch.queries[0], str(error))

    def _not_sent(self, query: Query, why: str) -> None:
        with self._lock:
            self._purchase.refused[query] = why

    def _count(self, answer: EmbedResult, paid: Spending, *, again: bool = False) -> None:
        if not again:
            self._queue.count(paid.queries - len(answer.vectors))  # a repeat is as if the cache had had it
        with self._lock:
            purchase = self._purchase
            if not again:
                purchase.bought += paid.queries
            purchase.cost_micros += paid.cost_micros
            purchase.refused.update(answer.refused)
            total, cost = self._queue.total, purchase.cost_micros
            self._on_progress(PurchaseProgress(purchase.bought, len(purchase.refused), total, cost))
