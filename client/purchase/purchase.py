"""A purchase: what was sent before is settled, then what the cache lacks is bought, and nothing twice."""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import replace

from client.errors import (
    InputRefused,
    QuotaExhausted,
    RequestRefused,
    RequestTooLarge,
    SpendingStopped,
    VendorError,
)
from client.purchase.budget import NOTHING, highest, price
from client.purchase.checkout import Checkout, Order
from client.purchase.concurrency import ConcurrencyLimiter
from client.purchase.jobs import Jobs
from client.purchase.lifecycle import ENDS, Event, State
from client.purchase.lock import run_lock
from client.purchase.queue import BuyingQueue, Channel, Gone
from client.purchase.requests import Requests
from client.purchase.result import PurchaseProgress, PurchaseResult, Tally
from client.purchase.settlement import Settlement
from client.purchase.vendor_check import VendorCheck
from client.vendors.query import Query

# After Ctrl-C, requests in flight have this many seconds to be answered; what is not stays noted.
_GRACE = 2.0
# Seconds between looks at what another run is buying.
_OTHERS_TAKE = 0.1


class Purchase:
    """One purchase by one run: what is left to buy, shared by the threads that buy it."""

    def __init__(
        self,
        checkout: Checkout,
        on_progress: Callable[[PurchaseProgress], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
        *,
        by_jobs: bool = False,
        wait: bool = True,
        directly: bool = False,
    ) -> None:
        """Buy nothing yet.

        Args:
            checkout: what is bought, by which run.
            on_progress: called as it goes on.
            say: receives messages for the user.
            by_jobs: whether the run buys by bulk jobs.
            wait: whether bulk jobs are waited for.
            directly: whether this is bought by requests all the same.
        """
        model, bulk = checkout.model, checkout.vendor.bulk
        self._checkout = checkout
        self._cache, self._budget = checkout.cache, checkout.budget
        self._say = say
        self._ended = threading.Event()
        self._limiter = ConcurrencyLimiter()
        self._tally = Tally(on_progress)
        self._requests = Requests(checkout, self._tally, self._limiter.push_back)
        self._channel: Channel = self._requests
        jobs = None
        if bulk is not None:
            prices, waits, pause = model.batch_prices or model.prices, by_jobs and wait, self._ended.wait
            jobs = Jobs(checkout, bulk, prices, self._tally, waits, pause, say)
        if jobs is not None and by_jobs and not directly:
            self._channel = jobs
        self._settlement = Settlement(
            checkout, self._requests, jobs, by_jobs, self._tally, self._ended.wait, say
        )
        self._queue = BuyingQueue(checkout, self._channel.prices, self._refuse, self._pass_over)
        self._wanted: dict[Query, Query] = {}
        self._own: dict[str, Order] = {}  # what this run had noted, by idempotency key
        self._left_to_jobs: set[Query] = set()
        self._lock = threading.Lock()
        self._errors: list[BaseException] = []

    def run(self, queries: Sequence[Query], used: Collection[Query]) -> PurchaseResult:
        """Buy until something ends it; see `Buyer.buy`."""
        checkout, result = self._checkout, self._tally.result
        self._wanted = self._settlement.wanted = {query: query for query in queries}
        self._settlement.recover(self._missing())
        with run_lock(self._cache.path, checkout.run_id), closing(self._queue):
            self._settle()
            check = VendorCheck(self._cache, checkout.model, checkout.vendor.url)
            buys = bool(self._queue)
            if check.passes(used, buys=buys, compare=self._compare, say=self._say):
                self._buy_all()
            else:
                result.uncompared = True
        self._settlement.require_told()
        result.out_of_budget = result.uncompared or bool(self._queue)
        return result

    def _settle(self) -> None:
        """Settle what this run sent before, then line up what the cache lacks."""
        cache, run_id = self._cache, self._checkout.run_id
        self._budget.catch_up(cache.spending(run_id))  # what another process paid for this run counts as well
        for note in cache.notes.of_run(run_id):
            order = self._own[note.batch.idempotency_key] = Order.found(note)
            self._set_aside(order)
        requests = [order for order in self._own.values() if not order.batch.is_job]
        self._settle_jobs([order for order in requests if self._settlement.settle_request(order)])

    def _settle_jobs(self, uncharged: Sequence[Order] = ()) -> None:
        """Settle bulk jobs, and send again what was not charged; then line up what the cache lacks.

        Raises:
            JobRunning: a job goes on, and is not waited for.
        """
        self._tally.expect(self._missing())
        uncharged = [*uncharged, *self._settlement.settle_jobs(self._own)]
        self._budget.catch_up(self._cache.spending(self._checkout.run_id))
        for order in uncharged:  # now that all that was paid counts in the budget
            self._budget.settle(order.reserved, paid=NOTHING)
            order.reserved = NOTHING
        missing, ready = self._missing(), set[Query]()
        for order in uncharged:
            if self._send_again(order, missing):
                ready.update(order.queries)
            else:
                self._settlement.forget(order, missing)
                self._set_aside(order)
        missing = self._missing()
        self._tally.expect(missing)
        self._queue.line_up(query for query in self._wanted if query in missing and query not in ready)

    def _set_aside(self, order: Order) -> None:
        """Set aside what a batch of this run may still cost, whatever the budget is."""
        if order.batch.run_id == self._checkout.run_id and order.state not in ENDS:
            order.reserved = self._cache.billed.owed(order.note, self._checkout.model.prices).spending
            self._budget.set_aside(order.reserved)

    def _send_again(self, order: Order, missing: set[Query]) -> bool:
        """Line up a batch under its old key, if all of it is wanted and the budget allows it.

        Under that key it is paid for once, even if the vendor is only now answering the first try.
        """
        checkout, note, today = self._checkout, order.note, self._channel.prices
        is_ours = note.batch.run_id == checkout.run_id and note.sent_by(checkout.payer)
        is_of_today = order.batch.fingerprint == checkout.model.fingerprint
        is_of_channel = order.batch.is_job == (self._channel is not self._requests)
        is_wanted = missing.issuperset(order.queries)
        if not (note.seconds_left and is_ours and is_of_today and is_of_channel and is_wanted):
            return False
        prices = highest(note.prices or today, today)
        cost = price(order.queries, prices)
        if not self._budget.reserve(cost):
            return False
        if not self._channel.restored(order, self._wanted):
            self._budget.settle(cost, paid=NOTHING)
            return False
        order.note, order.reserved = replace(order.note, prices=prices), cost
        self._queue.put_ready([order])
        return True

    def _missing(self) -> set[Query]:
        """The queries that the cache lacks and that can be bought without paying twice."""
        known = self._cache.known(self._checkout.model.fingerprint, self._wanted)
        left_out = self._settlement.untold.keys() | self._tally.result.refused.keys()
        return self._wanted.keys() - known - left_out

    def _refuse(self, query: Query, why: str) -> None:
        self._tally.refuse({query: why})

    def _pass_over(self, queries: Sequence[Query]) -> set[Query]:
        """The queries that were bought since they were lined up."""
        bought = self._cache.known(self._checkout.model.fingerprint, queries)
        self._tally.leave(bought)
        return bought

    def _compare(self, sample: Sequence[Query]) -> bool:
        """Buy some known queries again, and compare the answers; False where the budget reaches to none.

        Raises:
            AnswerRejected: they do not agree with what is known.
        """
        readable = self._requests.readable(self._queue, sample)
        are_gone = not readable
        while readable:
            order = self._requests.order(*zip(*readable, strict=True))
            if self._budget.reserve(order.reserved):
                self._buy(order, again=True)
                return True
            readable.pop()
        return are_gone

    def _buy_all(self) -> None:
        """Buy what is lined up, and what was left to bulk jobs that have not brought it."""
        while True:
            self._run_workers()
            if self._errors:
                raise self._errors[0]
            if not self._left_to_jobs:
                return
            self._left_to_jobs.clear()
            self._settle_jobs()

    def _run_workers(self) -> None:
        # Daemons, so that a vendor that hangs cannot keep an interrupted program from ending.
        count = self._channel.at_once
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self._end()
            self._checkout.vendor.stop()
            deadline = time.monotonic() + _GRACE
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            raise

    def _work(self) -> None:
        try:
            try:
                self._buy_batches()
            except (RequestRefused, SpendingStopped):  # of what was begun nothing is refused
                self._channel.finish()
                raise
            self._channel.finish()
        except BaseException as error:
            self._errors.append(error)
            self._end()

    def _buy_batches(self) -> None:
        while self._limiter.acquire():
            answered = 0
            try:
                order = None if self._ended.is_set() else self._channel.pack(self._queue)
                if order is None:
                    return
                with closing(order):
                    answered = self._buy(order)
            finally:
                self._limiter.release(answered)

    def _end(self) -> None:
        self._ended.set()
        self._limiter.stop()

    def _buy(self, order: Order, *, again: bool = False) -> int:
        """Buy one batch: noted before it is sent, stored before it is counted; how many were answered."""
        held = self._checkout.note(order, again=again)
        if held:
            self._defer(order, held)
            return 0
        try:
            return self._requests.buy(order, again=True) if again else self._channel.buy(order)
        except Gone:
            self._settlement.give_up(order)
            self._queue.put_back(() if again else order.queries)
        except (VendorError, SpendingStopped) as error:
            if order.state is not State.NOTED:
                raise
            if error.unsure or order.is_doubtful:
                self._checkout.apply(order, Event.DOUBT)
                raise
            self._refused(order, error, again=again)
        return 0

    def _refused(self, order: Order, error: VendorError | SpendingStopped, *, again: bool) -> None:
        """A batch was refused, free of charge: half of a request may pass where the whole is too much.

        Raises:
            ClientError: the error, where nothing else of the purchase may pass either.
        """
        too_much = isinstance(error, RequestTooLarge | InputRefused) and not order.batch.is_job
        may_split = too_much or (isinstance(error, QuotaExhausted) and not again)
        halves = self._requests.halves(order) if may_split and len(order.contents) > 1 else []
        for half in halves:  # what is set aside for the whole is set aside for them
            order.reserved -= half.reserved
        self._checkout.apply(order, Event.REFUSE, request_id=error.request_id)
        if halves and again:
            for half in halves:
                self._buy(half, again=True)
        elif halves:
            self._queue.put_ready(halves)
        elif too_much:
            self._refuse(order.queries[0], str(error))
        else:
            raise error

    def _defer(self, order: Order, held: set[Query]) -> None:
        """Put off what another run is buying right now: it will be in the cache, or else be bought last.

        What a run that was killed may have paid for is asked after first.
        """
        settlement = self._settlement
        if order.state is State.IN_DOUBT:  # it was to be sent again, and may be answered yet
            settlement.forget(order, set(order.queries))
        settlement.recover(held, only_past=True)
        jobs = settlement.noted_jobs(held, own=False)
        in_jobs = held & {query for note in jobs for query in note.batch.queries}
        left_out = in_jobs | (held & settlement.untold.keys())
        self._tally.leave(left_out)
        with self._lock:
            self._left_to_jobs |= in_jobs
        free = [query for query in order.queries if query not in held]
        self._queue.put_back(free)
        self._queue.postpone(query for query in order.queries if query in held and query not in left_out)
        if not free:
            self._ended.wait(_OTHERS_TAKE)
