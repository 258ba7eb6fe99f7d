"""Any order of all that can happen to money keeps every promise, on both databases.

Two processes share the books, each with a clock of its own: a little off, and now and then set wrong.
"""

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shared.kinds import KINDS
from tests.vendor_service.agreed import resume, set_coverage_limit, set_quota, suspend
from tests.vendor_service.batches.bulk_books import BulkProcess
from tests.vendor_service.books import HOLD_SECONDS, Books, asking
from tests.vendor_service.clocks import FakeClock, OtherClock
from vendor_service.accounts.keys import KeyTerms, rotate_key
from vendor_service.accounts.projects import ProjectTerms, change_terms, find_project
from vendor_service.acts import containment, money
from vendor_service.acts.act import Act
from vendor_service.clock import MOST_SKEW, SECOND, Clock, ClockWatch, next_month_start
from vendor_service.database.tables import Account
from vendor_service.database.view import View
from vendor_service.errors import APIError, OperatorError
from vendor_service.money import invoices, payments
from vendor_service.money.admission import Admission
from vendor_service.money.invoices import month_bounds
from vendor_service.money.orders import Admitted, Order
from vendor_service.money.replays import ReplayTerms

MOST_REPLAYS = 2
WINDOW_SECONDS = 30 * 86_400
YEARS = 12 * 365 * 86_400
PROCESS = st.integers(0, 1)
# What is asked for, by which process, and by which key.
ASKED: dict[str, Any] = {
    "images": st.integers(0, 4),
    "texts": st.integers(1, 4),
    "key": st.none() | st.sampled_from("ab"),
    "body": st.sampled_from("xy"),
    "which": PROCESS,
    "by_project": st.booleans(),
}


class MoneyMachine(RuleBasedStateMachine):
    """Drives real books, and keeps beside them the few numbers that a customer would note down."""

    def __init__(self, books: Books) -> None:
        super().__init__()
        self.books = books
        # Of two processes: the first by `books.clock`, the second by a clock that may be off.
        books.clock.step(-books.clock.wrong)
        books.clock.now = FakeClock().now
        self.other_clock = OtherClock(books.clock)
        self.clocks: tuple[Clock, ...] = (books.clock, self.other_clock)
        steady = books.clock.steady
        self.watches = [ClockWatch(clock, steady) for clock in self.clocks]
        terms = ReplayTerms(WINDOW_SECONDS, MOST_REPLAYS)
        self.processes = [
            Admission(books.database, self.clocks[which], HOLD_SECONDS, terms, self.watches[which])
            for which in range(2)
        ]
        self.bulk = [
            BulkProcess(books.database, self.clocks[which], self.processes[which]) for which in range(2)
        ]
        self.jobs: dict[str, list[tuple[int, int]]] = {}  # the chunks that are not settled yet
        self.asked: dict[str, tuple[Order, int]] = {}  # each hold's order, and when it was placed
        self.seq_of: dict[str, int] = {}

    @initialize(
        quota=st.none() | st.integers(0, 12),
        spend_limit=st.none() | st.integers(0, 900),
        credit=st.none() | st.integers(0, 900),
        period=st.sampled_from(["month", "total"]),
        key_quota=st.none() | st.integers(0, 8),
        coverage_limit=st.none() | st.integers(0, 12),
        project=st.builds(
            ProjectTerms,
            quota=st.none() | st.integers(0, 8),
            spend_limit_micros=st.none() | st.integers(0, 700),
        ),
        concurrency=st.none() | st.integers(1, 3),
        bought=st.integers(0, 4),
    )
    def open_account(
        self,
        quota: int | None,
        spend_limit: int | None,
        credit: int | None,
        period: str,
        key_quota: int | None,
        coverage_limit: int | None,
        project: ProjectTerms,
        concurrency: int | None,
        bought: int,
    ) -> None:
        self.order = self.books.open(
            KeyTerms(quota=key_quota),
            quota=quota,
            spend_limit_micros=spend_limit,
            credit_micros=credit,
            quota_period=period,
            coverage_limit=coverage_limit,
        )
        self.of_project = self.books.open_project(self.order, project, KeyTerms(concurrency=concurrency))
        self.open_holds: dict[str, int] = {}
        self.balance = credit or 0
        self.answered = 0
        self.replays: Counter[str] = Counter()
        self.cost_of: dict[int, int] = {}
        self.given_back: Counter[int] = Counter()
        self.references: dict[str, int] = {}
        self.final: dict[str, Any] = {}
        self.limits_hold = True
        self.covered: set[int] = set()
        if bought:  # under an idempotency key, to be asked for again: few are by chance
            self.admit(images=0, texts=bought, key="a", body="x", which=0, by_project=False)
        if self.open_holds:
            self.finish(settle=True, which=0, by=0, buckets=list(range(8)))

    @rule(**ASKED)
    def admit(
        self, images: int, texts: int, key: str | None, body: str, which: int, by_project: bool
    ) -> None:
        order = self.of_project if by_project else self.order
        asked = asking(order, images=images, texts=texts, idempotency_key=key, body_hash=body)
        try:
            admitted = self.books.admit_by(self.processes[which], asked)
        except APIError as error:
            assert error.code == "not_ready" or self.is_right(which)  # noqa: PT017 - others are admitted
            return
        assert self.is_right(which)
        if admitted.replayed:
            self.count_replay(admitted, body)
            return
        self.open_holds[admitted.request_id] = admitted.cost_micros
        self.asked[admitted.request_id] = asked, self.clocks[which]()

    @rule(**ASKED, buckets=st.lists(st.integers(0, 20), min_size=8, max_size=8))
    def sell(
        self,
        images: int,
        texts: int,
        key: str | None,
        body: str,
        which: int,
        by_project: bool,
        buckets: list[int],
    ) -> None:
        order = self.of_project if by_project else self.order
        asked = asking(order, images=images, texts=texts, idempotency_key=key, body_hash=body)
        before = self.books.account(self.order)
        try:
            sold = self.books.sell_by(self.processes[which], asked, buckets[: asked.queries])
        except APIError as error:
            assert error.code == "not_ready" or self.is_right(which)  # noqa: PT017 - others are sold
            return
        assert self.is_right(which)
        if sold.replayed:
            self.count_replay(sold, body)
            return
        after = self.books.account(self.order)
        assert sold.charged is not None
        assert sold.charged.seq == after.ledger_seq == before.ledger_seq + 1
        assert (after.queries_held, after.held_micros) == (before.queries_held, before.held_micros)
        self.asked[sold.request_id] = asked, self.clocks[which]()
        self.note_charge(sold.request_id, sold.cost_micros, buckets)

    def note_charge(self, hold: str, cost: int, buckets: list[int]) -> None:
        """Note down what the last entry charged."""
        account = self.books.account(self.order)
        self.balance -= cost
        self.answered += 1
        if account.coverage_limit is not None:
            self.covered |= set(buckets[: self.asked[hold][0].queries])
        self.seq_of[hold] = account.ledger_seq
        self.cost_of[self.seq_of[hold]] = cost

    def count_replay(self, admitted: Admitted, body: str) -> None:
        """Note down that something is answered again, which must have been paid for."""
        assert self.asked[admitted.request_id][0].body_hash == body
        self.replays[admitted.request_id] += 1
        assert self.replays[admitted.request_id] <= MOST_REPLAYS
        seq = self.seq_of[admitted.request_id]
        assert self.given_back[seq] < self.cost_of[seq]

    @precondition(lambda self: self.repeatable() and (self.is_right(0) or self.is_right(1)))
    @rule(
        which=st.integers(0),
        by=PROCESS,
        body=st.sampled_from(["same", "same", "same", "another"]),
        images=st.sampled_from([0, 0, 0, 1, -1]),
        texts=st.sampled_from([0, 0, 0, 1, -1]),
        times=st.integers(1, MOST_REPLAYS + 1),
    )
    def ask_again(self, which: int, by: int, body: str, images: int, texts: int, times: int) -> None:
        repeatable = self.repeatable()
        first = repeatable[which % len(repeatable)]
        asked, _ = self.asked[first]
        again = asking(
            asked,
            images=max(0, asked.counts["image"] + images),
            texts=max(0, asked.counts["text"] + texts),
        )
        if body != "same":
            again = replace(again, body_hash=body)
        for _ in range(times):
            self.repeat(again, first, by if self.is_right(by) else 1 - by)

    def repeat(self, again: Order, first: str, by: int) -> None:
        """Ask again for what was paid for by the hold `first`."""
        refusal = self.refusal_of(again, first, by)
        try:
            admitted = self.books.admit_by(self.processes[by], again)
        except APIError as error:
            assert error.code == refusal  # noqa: PT017 - others are answered again
            return
        assert refusal is None
        assert (admitted.replayed, admitted.request_id) == (True, first)
        self.count_replay(admitted, again.body_hash)

    def repeatable(self) -> list[str]:
        """The holds that were paid for under an idempotency key."""
        return sorted(each for each in self.seq_of if self.asked[each][0].idempotency_key is not None)

    def refusal_of(self, again: Order, first: str, by: int) -> str | None:
        """Why an order is not answered again that repeats what was paid for, or `None` if it is."""
        (asked, placed_at), seq = self.asked[first], self.seq_of[first]
        account, now = self.books.account(again), self.clocks[by]()
        reasons = [
            ("not_ready", account.is_ahead(now)),
            ("account_suspended", account.status == "suspended"),
            ("idempotency_key_reused", again.body_hash != asked.body_hash),
            ("charge_refunded", self.given_back[seq] == self.cost_of[seq]),
            ("idempotency_key_expired", now >= placed_at + WINDOW_SECONDS * SECOND),
            ("replays_exhausted", self.replays[first] == MOST_REPLAYS),
            ("conflict", any(again.counts[kind] < asked.counts[kind] for kind in KINDS)),
            ("idempotency_key_expired", again.queries > asked.queries),
        ]
        return next((code for code, so in reasons if so), None)

    @precondition(lambda self: self.replays)
    @rule(which=st.integers(0), by=PROCESS)
    def fail_to_answer_again(self, which: int, by: int) -> None:
        hold = sorted(self.replays)[which % len(self.replays)]
        self.processes[by].take_back_replay(self.order.account_id, hold).result()
        self.replays[hold] = max(0, self.replays[hold] - 1)

    @precondition(lambda self: self.open_holds)
    @rule(
        settle=st.booleans(),
        which=st.integers(0),
        by=PROCESS,
        buckets=st.lists(st.integers(0, 20), min_size=8, max_size=8),
    )
    def finish(self, settle: bool, which: int, by: int, buckets: list[int]) -> None:
        hold = sorted(self.open_holds)[which % len(self.open_holds)]
        cost = self.open_holds.pop(hold)
        if not settle:
            self.processes[by].void(self.order.account_id, hold).result()
            return
        try:
            buckets = buckets[: self.asked[hold][0].queries]
            self.processes[by].settle(self.order.account_id, hold, buckets).result()
        except APIError:
            # Swept, or by a wrong clock: the balance shows that it was not charged, and it never is.
            self.processes[by].void(self.order.account_id, hold).result()
            return
        assert self.is_right(by)
        self.note_charge(hold, cost, buckets)

    @rule(
        chunks=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2)), min_size=1, max_size=3),
        which=PROCESS,
    )
    def begin_job(self, chunks: list[tuple[int, int]], which: int) -> None:
        before = self.books.account(self.order).held_micros
        try:
            job = self.bulk[which].begin(self.order, *chunks)
        except APIError as error:
            assert error.code == "not_ready" or self.is_right(which)  # noqa: PT017 - others are begun
            return
        assert self.is_right(which)
        price = sum(50 * images + 10 * texts for images, texts in chunks)
        assert (job.held_micros, self.books.account(self.order).held_micros) == (price, before + price)
        self.jobs[job.id] = list(chunks)

    @precondition(lambda self: self.jobs)
    @rule(
        answered=st.sampled_from(["all", "texts", "nothing"]),
        dies=st.booleans(),
        by=PROCESS,
        buckets=st.lists(st.integers(0, 20), min_size=4, max_size=4),
    )
    def work_on_a_job(self, answered: str, dies: bool, by: int, buckets: list[int]) -> None:
        claim = self.bulk[by].claim()
        if claim is None or dies:
            return
        images = claim.piece.counts["image"] if answered == "all" else 0
        texts = 0 if answered == "nothing" else claim.piece.counts["text"]
        try:
            charged = self.bulk[by].settle(
                claim, images=images, texts=texts, buckets=buckets[: images + texts]
            )
        except APIError:
            return  # its hold was swept, or a clock is wrong; the balance shows that it was not charged
        assert self.is_right(by)
        self.jobs[claim.job.id].remove((claim.piece.counts["image"], claim.piece.counts["text"]))
        assert (charged is None) == (images + texts == 0)
        self.balance -= 50 * images + 10 * texts
        self.answered += charged is not None
        if self.books.account(self.order).coverage_limit is not None:
            self.covered |= set(buckets[: images + texts])

    @precondition(lambda self: self.jobs)
    @rule(by=PROCESS, which=st.integers(0))
    def cancel_a_job(self, by: int, which: int) -> None:
        job = sorted(self.jobs)[which % len(self.jobs)]
        assert self.bulk[by].jobs.cancel(View.whole(self.order.account_id), job, "key:1").held_micros == 0
        del self.jobs[job]

    @rule(which=PROCESS)
    def give_up_what_is_overdue(self, which: int) -> None:
        if self.watches[which].fault is None:
            self.bulk[which].jobs.end_overdue()

    def is_right(self, which: int) -> bool:
        """Whether the clock of a process is right, or off by so little that it may be."""
        return abs(self.clocks[which]() - self.books.clock.steady()) <= MOST_SKEW

    @rule(seconds=st.sampled_from([1, HOLD_SECONDS, 20 * 86_400]))
    def wait(self, seconds: int) -> None:
        self.books.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-1, 0, 1]))
    def wait_for_the_months_end(self, seconds: int) -> None:
        left = next_month_start(self.books.clock.steady()) - self.books.clock.steady()
        self.books.clock.advance(left // SECOND + seconds)

    @rule(seconds=st.sampled_from([-120, -0.5, 0, 0.5, 120]))
    def be_off(self, seconds: float) -> None:
        self.other_clock.off = seconds

    @rule(which=PROCESS, seconds=st.sampled_from([-20 * 86_400, 20 * 86_400, YEARS, -YEARS]))
    def set_wrong(self, which: int, seconds: int) -> None:
        self.set_right(which)
        if which == 0:
            self.books.clock.step(seconds)
        else:
            self.other_clock.wrong = seconds

    @rule(which=PROCESS)
    def set_right(self, which: int) -> None:
        if which == 0:
            self.books.clock.step(-self.books.clock.wrong)
        else:
            self.other_clock.wrong = 0

    @rule(seconds=st.sampled_from([YEARS, 40 * 86_400]))
    def buy_by_a_wrong_clock_that_nobody_watches(self, seconds: int) -> None:
        try:
            self.books.misdate(self.order, self.books.clock.steady() + seconds * SECOND)
        except APIError:
            return
        self.balance -= 100
        self.answered += 1
        self.limits_hold = False  # a period that began too early was counted apart

    @precondition(lambda self: self.is_right(0))
    @rule()
    def repair(self) -> None:
        try:
            self.books.repair(self.order)
        except OperatorError:  # a month that is not over was invoiced by a wrong clock
            assert any(month_bounds(month)[1] > self.books.clock() for month in self.final)
            return
        account = self.books.account(self.order)
        assert not account.is_ahead(self.books.clock())

    @rule(which=PROCESS)
    def sweep(self, which: int) -> None:
        if self.watches[which].fault is None:  # as the sweeper has it
            self.processes[which].sweep()

    @rule(which=PROCESS)
    def renew(self, which: int) -> None:
        if self.watches[which].fault is None:
            self.processes[which].renew(10 * HOLD_SECONDS)

    @rule(amount=st.integers(-200, 300), kind=st.sampled_from(["top_up", "payment", "adjust"]))
    def move_money(self, amount: int, kind: str) -> None:
        with self.books.database.write() as session:
            account = session.get_one(Account, self.order.account_id, with_for_update=True)
            try:
                if kind == "top_up":
                    payments.top_up(session, account, amount, self.books.clock())
                elif kind == "payment":
                    payments.payment(session, account, amount, self.books.clock(), None)
                else:
                    payments.adjust(session, account, amount, "a reason", self.books.clock())
            except OperatorError:
                return
        self.balance += amount

    @rule(
        seq=st.integers(1, 6),
        amount=st.none() | st.integers(-10, 250),
        reference=st.none() | st.sampled_from("rs"),
    )
    def refund(self, seq: int, amount: int | None, reference: str | None) -> None:
        before = self.books.account(self.order).spent_micros
        with self.books.database.write() as session:
            act = Act(session, "os:test", self.books.clock, trust_clock=True)
            try:
                recorded = money.refund(act, self.books.account(self.order).name, seq, amount, reference)
            except OperatorError:
                return
        micros = recorded.entry.amount_micros
        if recorded.before:
            assert reference in self.references
            assert self.references[reference] == recorded.entry.seq
            return
        if reference is not None:
            assert reference not in self.references
            self.references[reference] = recorded.entry.seq
        self.given_back[seq] += micros
        assert self.given_back[seq] <= self.cost_of.get(seq, 100)  # by a clock that nobody watched: one image
        assert before - self.books.account(self.order).spent_micros in (0, micros)
        self.balance += micros

    @rule(terms=st.builds(ProjectTerms, quota=st.none() | st.integers(0, 20)))
    def change_project(self, terms: ProjectTerms) -> None:
        with self.books.locked(self.order) as (session, account):
            project = find_project(session, account, "search")
            if terms.quota is None or terms.quota >= project.queries_used + project.queries_held:
                change_terms(project, terms)

    @rule(quota=st.none() | st.integers(0, 30))
    def raise_quota(self, quota: int | None) -> None:
        with self.books.database.write() as session:
            account = session.get_one(Account, self.order.account_id, with_for_update=True)
            if quota is None or quota >= account.queries_used + account.queries_held:
                set_quota(account, quota)

    @rule(limit=st.none() | st.integers(0, 20))
    def raise_coverage_limit(self, limit: int | None) -> None:
        with self.books.database.write() as session:
            account = session.get_one(Account, self.order.account_id, with_for_update=True)
            if limit is None or limit >= account.buckets_covered + account.queries_held:
                set_coverage_limit(account, limit)

    @rule(suspended=st.booleans())
    def suspend_or_resume(self, suspended: bool) -> None:
        with self.books.database.write() as session:
            account = session.get_one(Account, self.order.account_id, with_for_update=True)
            (suspend if suspended else resume)(account)

    @rule(grace=st.integers(0, 100))
    def rotate(self, grace: int) -> None:
        with self.books.database.write() as session:
            rotate_key(session, self.order.key_id, grace, self.books.clock)

    @rule(of_project=st.booleans())
    def contain(self, of_project: bool) -> None:
        order = self.of_project if of_project else self.order
        with self.books.database.write() as session:
            containment.contain(Act(session, "os:test", self.books.clock), order.key_id)
        if not of_project:
            for job in self.jobs:
                assert self.bulk[0].jobs.get(View.whole(self.order.account_id), job).held_micros == 0

    @rule(month=st.sampled_from(["2026-10", "2026-11", "2026-12", "2038-11"]), which=PROCESS)
    def issue_invoice(self, month: str, which: int) -> None:
        now, watch = self.clocks[which](), self.watches[which]
        try:
            issued = invoices.issue(self.books.database, self.order.account_id, month, now, watch)
        except APIError as error:
            assert error.code in ("not_ready", "not_found")  # noqa: PT017 - most of them are issued
            return
        before = self.final.get(month)
        if before is not None:
            assert issued == before
        elif issued.final and issued.number is not None:
            self.final[month] = issued

    @invariant()
    def promises_hold(self) -> None:
        account = self.books.check(self.order, self.of_project, limits=self.limits_hold)
        entries = self.books.entries(self.order)
        assert sum(entry.amount_micros for entry in entries) == self.balance
        assert sum(entry.kind == "charge" for entry in entries) == self.answered
        assert account.buckets_covered == len(self.covered)

    def ask_for_all_again(self) -> None:
        """Ask by a right clock for all that was paid for: changed, and once more than it may be."""
        self.set_right(0)
        for first in self.repeatable():
            asked, _ = self.asked[first]
            self.repeat(replace(asked, body_hash="another"), first, 0)
            self.repeat(asking(asked, texts=asked.counts["text"] - 1), first, 0)
            self.repeat(asking(asked, texts=asked.counts["text"] + 1), first, 0)
            for _ in range(MOST_REPLAYS + 1):
                self.repeat(asked, first, 0)

    def teardown(self) -> None:
        self.ask_for_all_again()
        for job in self.jobs:
            self.bulk[0].jobs.cancel(View.whole(self.order.account_id), job, "key:1")
        for each in self.processes:
            each.void_abandoned()
            each.close()


def test_any_order_of_all_operations_keeps_every_promise(books: Books) -> None:
    machine: Any = partial(MoneyMachine, books)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20 if books.database.embedded else 10,
            stateful_step_count=25,
            suppress_health_check=list(HealthCheck),
        ),
    )
