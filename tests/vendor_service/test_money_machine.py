"""Any order of all that can happen to money keeps every promise, on both databases."""

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

from tests.vendor_service.books import HOLD_SECONDS, Books
from tests.vendor_service.clocks import FakeClock
from vendor_service.accounts.accounts import resume, set_quota, suspend
from vendor_service.accounts.keys import KeyTerms, rotate_key
from vendor_service.billing import invoices, ledger
from vendor_service.database.tables import Account
from vendor_service.errors import OperatorError, Refusal


class MoneyMachine(RuleBasedStateMachine):
    """Drives real books, and keeps beside them the few numbers that a customer would note down."""

    def __init__(self, books: Books) -> None:
        super().__init__()
        self.books = books

    @initialize(
        quota=st.none() | st.integers(0, 12),
        spend_limit=st.none() | st.integers(0, 900),
        credit=st.none() | st.integers(0, 900),
        period=st.sampled_from(["month", "total"]),
        key_quota=st.none() | st.integers(0, 8),
    )
    def open_account(
        self,
        quota: int | None,
        spend_limit: int | None,
        credit: int | None,
        period: str,
        key_quota: int | None,
    ) -> None:
        self.books.clock.now = FakeClock().now
        self.order = self.books.open(
            KeyTerms(quota=key_quota),
            quota=quota,
            spend_limit_micros=spend_limit,
            credit_micros=credit,
            quota_period=period,
        )
        self.open_holds: dict[str, int] = {}
        self.balance = credit or 0
        self.answered = 0
        self.paid: dict[str, str] = {}
        self.refunded: set[int] = set()
        self.final: dict[str, Any] = {}

    @rule(
        images=st.integers(0, 4),
        texts=st.integers(1, 4),
        key=st.none() | st.sampled_from("ab"),
        body=st.sampled_from("xy"),
    )
    def admit(self, images: int, texts: int, key: str | None, body: str) -> None:
        try:
            admitted = self.books.admit(
                self.order, images=images, texts=texts, idempotency_key=key, body_hash=body
            )
        except Refusal:
            return
        if admitted.replayed:
            assert self.paid[admitted.request_id] == body
            return
        self.open_holds[admitted.request_id] = admitted.cost_micros
        self.paid[admitted.request_id] = body

    @precondition(lambda self: self.open_holds)
    @rule(settle=st.booleans(), which=st.integers(0))
    def finish(self, settle: bool, which: int) -> None:
        hold = sorted(self.open_holds)[which % len(self.open_holds)]
        cost = self.open_holds.pop(hold)
        if not settle:
            self.books.admission.void(self.order.account_id, hold).result()
            return
        try:
            self.books.admission.settle(self.order.account_id, hold).result()
        except Refusal:
            return  # it had expired and was swept: the balance shows that it was not charged
        self.balance -= cost
        self.answered += 1

    @rule(seconds=st.sampled_from([1, HOLD_SECONDS, 20 * 86_400, -5, -20 * 86_400]))
    def wait(self, seconds: int) -> None:
        self.books.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        self.books.admission.sweep()

    @rule()
    def renew(self) -> None:
        self.books.admission.renew(10 * HOLD_SECONDS)

    @rule(amount=st.integers(-200, 300), kind=st.sampled_from(["top_up", "adjust"]))
    def move_money(self, amount: int, kind: str) -> None:
        with self.books.database.write() as session:
            account = session.get_one(Account, self.order.account_id, with_for_update=True)
            try:
                if kind == "top_up":
                    ledger.top_up(session, account, amount, self.books.clock())
                else:
                    ledger.adjust(session, account, amount, "a reason", self.books.clock())
            except OperatorError:
                return
        self.balance += amount

    @rule(seq=st.integers(1, 6))
    def refund(self, seq: int) -> None:
        with self.books.database.write() as session:
            account = session.get_one(Account, self.order.account_id, with_for_update=True)
            try:
                entry = ledger.refund(session, account, seq, self.books.clock())
            except OperatorError:
                return
        assert seq not in self.refunded
        self.refunded.add(seq)
        self.balance += entry.amount_micros

    @rule(quota=st.none() | st.integers(0, 30))
    def raise_quota(self, quota: int | None) -> None:
        with self.books.database.write() as session:
            account = session.get_one(Account, self.order.account_id, with_for_update=True)
            if quota is None or quota >= account.queries_used + account.queries_held:
                set_quota(account, quota)

    @rule(suspended=st.booleans())
    def suspend_or_resume(self, suspended: bool) -> None:
        with self.books.database.write() as session:
            account = session.get_one(Account, self.order.account_id, with_for_update=True)
            (suspend if suspended else resume)(account)

    @rule(grace=st.integers(0, 100))
    def rotate(self, grace: int) -> None:
        with self.books.database.write() as session:
            rotate_key(session, self.order.key_id, grace, self.books.clock)

    @rule(month=st.sampled_from(["2026-10", "2026-11", "2026-12"]))
    def issue_invoice(self, month: str) -> None:
        issued = invoices.issue(self.books.database, self.order.account_id, month, self.books.clock())
        before = self.final.get(month)
        if before is not None:
            assert issued.model_copy(update={"final": True}) == before
        elif issued.final:
            self.final[month] = issued

    @invariant()
    def promises_hold(self) -> None:
        self.books.check(self.order)
        entries = self.books.entries(self.order)
        assert sum(entry.amount_micros for entry in entries) == self.balance
        assert sum(entry.kind == "charge" for entry in entries) == self.answered

    def teardown(self) -> None:
        self.books.admission.void_abandoned()


def test_any_order_of_all_operations_keeps_every_promise(books: Books) -> None:
    machine: Any = partial(MoneyMachine, books)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
