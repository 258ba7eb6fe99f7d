"""Corrections, verification, invoices, plans and prices: what is written down stays, and adds up."""

from dataclasses import replace
from datetime import datetime

import pytest
from sqlalchemy.exc import DatabaseError

from shared.billing import EstimateRequest, Invoice
from shared.embeddings import Kind
from shared.kinds import UnitPrices
from tests.vendor_service.agreed import set_plan, suspend
from tests.vendor_service.books import Books, on_sqlite
from vendor_service.accounts.keys import KeyTerms
from vendor_service.acts import money
from vendor_service.acts.act import Act
from vendor_service.acts.declaration import Recorded
from vendor_service.clock import DAY, SECOND, from_datetime
from vendor_service.database.tables import STANDARD_PLAN, Account
from vendor_service.errors import APIError, OperatorError, UsageError
from vendor_service.money import ledger, payments, prices
from vendor_service.money.estimates import estimate
from vendor_service.money.invoice_formats import as_html, as_text
from vendor_service.money.orders import Order
from vendor_service.terms import MAX_NUMBER

NOVEMBER_END = from_datetime(datetime(2026, 12, 1))


def invoice(books: Books, order: Order, month: str = "2026-11") -> Invoice:
    return books.invoice(order, month)


def refund(
    books: Books, order: Order, seq: int, micros: int | None = None, reference: str | None = None
) -> None:
    with books.database.write() as session:
        account = session.get_one(Account, order.account_id, with_for_update=True)
        payments.refund(session, account, seq, books.clock(), micros, reference)


def adjust(books: Books, order: Order, amount: int, reason: str = "a reason") -> None:
    with books.database.write() as session:
        account = session.get_one(Account, order.account_id, with_for_update=True)
        payments.adjust(session, account, amount, reason, books.clock())


def top_up(books: Books, order: Order, amount: int) -> None:
    with books.database.write() as session:
        account = session.get_one(Account, order.account_id, with_for_update=True)
        payments.top_up(session, account, amount, books.clock())


@on_sqlite
def test_a_charge_is_given_back_in_parts_and_never_more_than_it_was(books: Books) -> None:
    order = books.open(KeyTerms(spend_limit_micros=300), spend_limit_micros=300, credit_micros=500)
    books.buy(order, images=3, idempotency_key="k")

    def give_back(micros: int | None, reference: str | None = None) -> Recorded:
        with books.database.write() as session:
            act = Act(session, "os:test", books.clock)
            return money.refund(act, books.account(order).name, 2, micros, reference)

    first = give_back(120, "ticket 1")
    assert give_back(120, "ticket 1") == replace(first, before=True)
    assert books.admit(order, images=3, idempotency_key="k").replayed  # a part of it is still paid for
    for micros, reference, problem in (
        (181, "ticket 2", "0.00018 is left"),
        (121, "ticket 1", "the reference"),
        (None, "ticket 1", "the reference"),  # 180 are left, which were not given back by it
        (0, "ticket 2", "positive"),
        (-1, "ticket 2", "positive"),
        (1, "", "reference"),
    ):
        with pytest.raises(OperatorError, match=problem):
            give_back(micros, reference)
        books.check(order)
    assert (books.account(order).spent_micros, books.key(order).spent_micros) == (180, 180)
    give_back(80, "ticket 2")
    last = give_back(None, "ticket 3")
    assert (last.entry.amount_micros, last.before) == (100, False)
    assert give_back(None, "ticket 3") == replace(last, before=True)
    with pytest.raises(OperatorError, match="refunded already"):
        give_back(None)
    assert (books.account(order).credit_micros, books.key(order).spent_micros) == (500, 0)
    with pytest.raises(APIError, match="was refunded"):
        books.admit(order, images=3, idempotency_key="k")
    books.check(order)
    books.tamper("UPDATE ledger_entries SET amount_micros = 121 WHERE seq = 3")
    assert books.problem(order) is not None


@on_sqlite
def test_a_charge_of_nothing_is_given_back_once_and_a_refund_takes_no_money(books: Books) -> None:
    order = books.open(credit_micros=500)
    with books.database.write() as session:
        prices.set_price(session, STANDARD_PLAN, order.model, "image", 0, books.clock())
    books.buy(order, images=3)
    for micros, reference in ((-400, "ticket 1"), (1, "ticket 2")):
        with pytest.raises(OperatorError, match=r"positive|0.00 is left"):
            refund(books, order, 2, micros, reference)
    refund(books, order, 2)
    with pytest.raises(OperatorError, match="refunded already"):
        refund(books, order, 2)
    assert books.account(order).credit_micros == 500
    books.check(order)
    books.buy(order, images=3)
    with books.database.write() as session:  # as an earlier version let it
        account = session.get_one(Account, order.account_id)
        ledger.append(session, account, "refund", -400, books.clock(), corrects_seq=4)
    assert "entry 5 does not give back" in str(books.problem(order))


def test_a_refund_gives_back_the_money_once_and_not_the_quota(books: Books) -> None:
    order = books.open(quota=3, credit_micros=300)
    books.buy(order, images=2)
    refund(books, order, 2)
    account = books.account(order)
    assert (account.credit_micros, account.queries_used) == (300, 2)
    last = books.entries(order)[-1]
    assert (last.kind, last.amount_micros, last.corrects_seq) == ("refund", 200, 2)
    for seq, problem in ((2, "already"), (1, "no charge 1"), (3, "no charge 3"), (99, "no charge 99")):
        with pytest.raises(OperatorError, match=problem):
            refund(books, order, seq)
    books.check(order)


def test_credit_is_topped_up_and_adjusted_within_what_is_free(books: Books) -> None:
    order = books.open(credit_micros=0)
    top_up(books, order, 250)
    books.admit(order, images=2)
    adjust(books, order, -50)
    with pytest.raises(UsageError, match=r"0\.00 of free credit"):
        adjust(books, order, -1)
    assert books.account(order).credit_micros == 200
    books.check(order)


@pytest.mark.parametrize("amount", [0, -1, 2**53, 10**30])
@on_sqlite
def test_amounts_that_cannot_be_are_refused(books: Books, amount: int) -> None:
    prepaid, invoiced = books.open(credit_micros=1), books.open()
    with pytest.raises(UsageError):
        top_up(books, prepaid, amount)
    with pytest.raises(OperatorError, match="invoiced"):
        top_up(books, invoiced, 5)
    with pytest.raises(UsageError):
        adjust(books, invoiced, 0 if amount == -1 else amount)
    with pytest.raises(UsageError, match="reason"):
        adjust(books, invoiced, 5, " ")
    assert len(books.entries(prepaid)) == 1


@on_sqlite
def test_credit_stays_a_number_that_every_reader_of_json_can_tell(books: Books) -> None:
    order = books.open(credit_micros=5)
    with pytest.raises(UsageError, match="16 digits"):
        top_up(books, order, MAX_NUMBER - 4)
    top_up(books, order, MAX_NUMBER - 5)
    assert books.account(order).credit_micros == MAX_NUMBER
    books.check(order)


@on_sqlite
def test_a_payment_is_on_the_invoice_and_deducted_from_no_month(books: Books) -> None:
    order = books.open()
    books.buy(order, images=3)
    books.clock.now = NOVEMBER_END + DAY
    with books.locked(order) as (session, account):
        paid = payments.payment(session, account, 250, books.clock(), "bank 1")
    assert (paid.kind, paid.amount_micros, paid.reference) == ("payment", 250, "bank 1")
    books.buy(order)
    november, december = invoice(books, order), invoice(books, order, "2026-12")
    assert (november.total_micros, november.payments_micros, november.balance_due_micros) == (300, 0, 300)
    assert (december.total_micros, december.payments_micros, december.balance_due_micros) == (100, 250, 150)
    assert (december.adjustments_micros, december.top_ups_micros) == (0, 0)
    for shown in (as_text(december), as_html(december)):
        assert "Payments received during the month: 0.000250" in shown
        assert "Balance due at the end of the month: 0.000150" in shown
    prepaid = books.open(credit_micros=300)
    books.buy(prepaid)
    assert invoice(books, prepaid, "2026-12").balance_due_micros is None
    for terms, refused in ((order, payments.top_up), (prepaid, payments.payment)):
        with books.locked(terms) as (session, account), pytest.raises(OperatorError):
            refused(session, account, 5, books.clock(), "bank 2")
    for amount, reference in ((0, "r"), (2**53, "r"), (5, " "), (5, "r" * 256)):
        with books.locked(order) as (session, account), pytest.raises(UsageError):
            payments.payment(session, account, amount, books.clock(), reference)
    books.check(order)
    books.check(prepaid)


def test_a_reference_counts_once_an_account(books: Books) -> None:
    order, other = books.open(), books.open()
    for each in (order, other):
        with books.locked(each) as (session, account):
            assert payments.recorded(session, account, "payment", 5, "bank 1") is None
            payments.payment(session, account, 5, books.clock(), "bank 1")
    with books.locked(order) as (session, account):
        again = payments.recorded(session, account, "payment", 5, "bank 1")
        assert (again and again.seq) == 1
        for kind, amount in (("payment", 6), ("top_up", 5)):
            with pytest.raises(OperatorError, match="entry 1"):
                payments.recorded(session, account, kind, amount, "bank 1")
    # Whatever the program does, the database counts it once.
    with pytest.raises(DatabaseError, match="reference"), books.locked(order) as (session, account):
        payments.payment(session, account, 5, books.clock(), "bank 1")
    assert len(books.entries(order)) == 1


@on_sqlite
def test_two_models_of_one_name_are_apart_on_an_invoice(books: Books) -> None:
    order = books.open()
    books.buy(order, images=2)
    assert "fp_1" not in as_text(invoice(books, order))
    books.buy(order, model_fingerprint="fp_2")
    issued = invoice(books, order)
    assert [(line.model_fingerprint, line.queries) for line in issued.lines] == [("fp_1", 2), ("fp_2", 1)]
    assert "icon-clip (fp_2), image" in as_text(issued)


TAMPERING = [
    ("UPDATE ledger_entries SET amount_micros = -1 WHERE seq = 2", "entry 2 was changed"),
    ("UPDATE ledger_entries SET entry_hash = previous_hash WHERE seq = 2", "entry 2 was changed"),
    ("UPDATE ledger_entries SET previous_hash = entry_hash WHERE seq = 3", "entry 3 does not follow"),
    ("DELETE FROM ledger_entries WHERE seq = 2", "entry 2 is missing"),
    ("DELETE FROM ledger_entries WHERE seq = 3", "entry 2 is not the last one"),
    ("UPDATE accounts SET queries_used = 1", "queries_used of the account is 1"),
    ("UPDATE accounts SET credit_micros = 999", "the credit is 999"),
    ("UPDATE api_keys SET spent_micros = 1", "spent_micros of the key"),
    ("UPDATE accounts SET queries_held = 7", "queries_held of the account is 7"),
    ("UPDATE holds SET state = 'voided' WHERE state = 'settled'", "0 settled holds"),
    ("UPDATE ledger_totals SET quantity = 3 WHERE quantity = 2", "running total of charge entries"),
    ("UPDATE ledger_totals SET model_fingerprint = 'fp_2' WHERE kind = 'charge'", "running total of charge"),
    ("DELETE FROM ledger_totals WHERE kind = 'top_up'", "running total of top_up entries"),
    ("UPDATE ledger_totals SET hour = hour - 1 WHERE kind = 'top_up'", "running total of top_up entries"),
    (
        "INSERT INTO ledger_totals SELECT account_id, hour + 9, kind, project_id, key_id, model, "
        "model_fingerprint, sold, unit_micros, batch, entries, requests, quantity, amount_micros, "
        "first_seq, last_seq FROM ledger_totals WHERE kind = 'top_up'",
        "there are 4 running totals, but the entries make 3",
    ),
]


@pytest.mark.parametrize(
    ("books", "change", "problem"),
    [("sqlite", *each) for each in TAMPERING] + [("postgresql", *each) for each in TAMPERING[::5]],
    indirect=["books"],
)
def test_verification_names_the_first_fault(books: Books, change: str, problem: str) -> None:
    order = books.open(credit_micros=1000)
    books.buy(order, images=2)
    books.buy(order, texts=2, images=0)
    assert books.problem(order) is None
    books.tamper(change)
    assert problem in (books.problem(order) or "")


@on_sqlite
def test_an_invoice_adds_up_by_model_kind_and_price_and_stays(books: Books) -> None:
    order = books.open()
    books.buy(order, images=2, texts=3)
    with books.database.write() as session:
        prices.set_price(session, "standard", "icon-clip", "image", 7, books.clock())
    books.buy(order, images=10)
    refund(books, order, 1)
    adjust(books, order, -30)
    draft = invoice(books, order)
    assert not draft.final
    assert [(line.kind, line.queries, line.unit_micros, line.amount_micros) for line in draft.lines] == [
        ("image", 10, 7, 70),
        ("image", 2, 100, 200),
        ("text", 3, 20, 60),
    ]
    assert (draft.refunds_micros, draft.adjustments_micros, draft.total_micros) == (260, -30, 100)
    assert -sum(entry.amount_micros for entry in books.entries(order)) == draft.total_micros
    assert (draft.first_seq, draft.last_seq) == (1, 4)
    books.clock.advance(20 * DAY / SECOND)
    final = invoice(books, order)
    issued = {"number": 1, "issued_on": final.issued_on, "due_on": final.due_on}
    assert final == draft.model_copy(update=issued | {"final": True})
    books.buy(order)
    assert invoice(books, order) == final
    assert invoice(books, order, "2026-12").total_micros == 7


@on_sqlite
def test_nothing_is_dated_into_a_month_that_was_invoiced(books: Books) -> None:
    """Neither a charge that was under way at midnight, nor anything after a clock that stepped back."""
    order = books.open()
    books.buy(order)
    held = books.admit(order)
    books.clock.now = NOVEMBER_END
    final = invoice(books, order)
    assert final.final
    books.clock.now = NOVEMBER_END - 5 * SECOND
    books.admission.settle(order.account_id, held.request_id).result()
    books.buy(order)
    books.clock.now = NOVEMBER_END
    assert invoice(books, order) == final
    assert invoice(books, order, "2026-12").total_micros == 200
    books.check(order)


@on_sqlite
def test_an_invoice_can_be_read_and_carries_no_markup_of_others(books: Books) -> None:
    order = books.open()
    books.buy(order, model="icon-clip", images=3)
    issued = invoice(books, order)
    page = as_html(issued.model_copy(update={"account": "<script>"}))
    assert "<script>" not in page
    for shown in (as_text(issued), as_html(issued)):
        assert "0.000300" in shown
        assert "icon-clip, image" in shown
        assert issued.last_hash is not None
        assert issued.last_hash in shown
    with pytest.raises(APIError, match="was opened in 2026-11"):
        invoice(books, order, "2026-01")
    assert "no entries" in as_text(invoice(books, order, "2026-12"))
    for month in ("2026-13", "november", "2026", "9999-12"):
        with pytest.raises(UsageError, match="no month"):
            invoice(books, order, month)


@on_sqlite
def test_a_plan_has_its_own_prices_from_its_own_day(books: Books) -> None:
    later = books.clock() + DAY
    with books.database.write() as session:
        prices.set_price(session, "research", "icon-clip", "image", 50, later)
    order = books.open(plan="research")
    books.buy(order)
    books.clock.now = later
    books.buy(order, images=1, texts=1)
    assert [entry.amount_micros for entry in books.entries(order)] == [-100, -70]
    standard = books.open()
    books.buy(standard)
    with books.database.write() as session:
        account = session.get_one(Account, standard.account_id, with_for_update=True)
        set_plan(session, account, "research", books.clock())
        with pytest.raises(OperatorError, match="research, standard"):
            set_plan(session, account, "nonesuch", books.clock())
    books.buy(standard)
    assert [entry.amount_micros for entry in books.entries(standard)] == [-100, -50]
    with pytest.raises(OperatorError, match="no plan"):
        books.open(plan="nonesuch")


@on_sqlite
def test_a_start_changes_no_price_and_says_where_another_was_asked_for(books: Books) -> None:
    """`Books` published 100 and 20."""
    now = books.clock()
    with books.database.write() as session:
        prices.set_price(session, "standard", "icon-clip", "image", 5, now)
        assert prices.publish(session, "icon-clip", {"image": 100}, now + 1) == [
            prices.PriceDifference("image", 100, 5)
        ]
        assert prices.publish(session, "icon-clip", {"image": 5, "text": 20}, now + 1) == []
        assert prices.current(session, "standard", "icon-clip", now + 1)["image"] == 5
        assert prices.publish(session, "a-new-one", {"image": 7}, now) == []
        bought = prices.current(session, "standard", "a-new-one", now)
        assert (bought["image"], bought["text"]) == (7, 20)


@on_sqlite
def test_a_start_prices_a_plan_that_never_named_a_price_and_leaves_others(books: Books) -> None:
    now = books.clock()
    wanted: dict[Kind, int] = {"image": 2}

    def publish(asked: dict[Kind, int], at: int) -> list[prices.PriceDifference]:
        with books.database.write() as session:
            return prices.publish_plan(session, "research", "icon-clip", asked, at)

    def holding(at: int) -> UnitPrices:
        with books.database.read() as session:
            return prices.current(session, "research", "icon-clip", at)

    assert publish(wanted, now) == publish(wanted, now + 1) == []
    assert holding(now) == {"image": 2, "text": 20}
    assert holding(now - 1)["image"] == 100  # what was before stays as it was
    assert publish({"image": 3}, now + 2) == [prices.PriceDifference("image", 3, 2, "research")]
    with books.database.write() as session:
        prices.unset_price(session, "research", "icon-clip", "image", now + 3)
    assert publish(wanted, now + 4) == [prices.PriceDifference("image", 2, None, "research")]
    assert holding(now + 4)["image"] == 100


@on_sqlite
def test_a_price_that_was_set_before_the_first_start_holds_from_the_beginning(books: Books) -> None:
    with books.database.write() as session:
        prices.set_price(session, "standard", "to-come", "image", 5, books.clock())
        assert prices.publish(session, "to-come", {"image": 9}, books.clock() + 1)
        assert prices.current(session, "standard", "to-come", 1)["image"] == 5


def test_a_price_of_a_plan_can_be_taken_back_and_its_history_stays(books: Books) -> None:
    now = books.clock()
    with books.database.write() as session:
        prices.set_price(session, "research", "icon-clip", "image", 50, now)
        prices.set_price(session, "research", "icon-clip", "image", 40, now + DAY)
    order = books.open(plan="research")
    books.buy(order)
    books.clock.advance(1)
    with books.database.write() as session:
        prices.unset_price(session, "research", "icon-clip", "image", books.clock())
    books.buy(order)
    books.clock.advance(2 * 86_400)
    books.buy(order)
    assert [entry.amount_micros for entry in books.entries(order)] == [-50, -100, -100]
    assert books.problem(order) is None
    with books.database.write() as session:
        facts = [each for each in prices.history(session, books.clock()) if each.plan == "research"]
        assert [(each.micros, each.state) for each in facts] == [(50, "past"), (None, "in force")]
        assert prices.plans(session, books.clock()) == {"standard"}
        with pytest.raises(OperatorError, match="no price"):
            prices.unset_price(session, "research", "icon-clip", "image", books.clock())
        with pytest.raises(OperatorError, match="is sold"):
            prices.unset_price(session, "standard", "icon-clip", "image", books.clock())


@on_sqlite
def test_a_price_of_a_model_that_was_never_served_is_dropped(books: Books) -> None:
    with books.database.write() as session:
        prices.set_price(session, "standard", "icon-klip", "image", 5, books.clock())
        prices.unset_price(session, "standard", "icon-klip", "image", books.clock())
        assert {each.model for each in prices.history(session, books.clock())} == {"icon-clip"}


@pytest.mark.parametrize(
    ("terms", "code"),
    [({"quota": 3}, "quota_exhausted"), ({"spend_limit_micros": 399}, "spend_limit_reached")],
)
@on_sqlite
def test_a_key_has_limits_of_its_own(books: Books, terms: dict[str, int], code: str) -> None:
    order = books.open(KeyTerms(**terms), quota=100)  # type: ignore[arg-type]
    assert books.admit(order, images=2).quota_left == (1 if "quota" in terms else 98)
    with pytest.raises(APIError, match="this key") as refused:
        books.admit(order, images=2)
    assert refused.value.code == code
    books.buy(order, images=1)
    books.clock.advance(20 * DAY / SECOND)
    books.buy(order, images=1)
    books.check(order)


@on_sqlite
def test_a_suspended_account_is_refused_at_admission_and_what_is_in_flight_is_charged(books: Books) -> None:
    order = books.open()
    held = books.admit(order)
    with books.database.write() as session:
        suspend(session.get_one(Account, order.account_id))
    with pytest.raises(APIError) as refused:
        books.admit(order)
    assert refused.value.code == "account_suspended"
    books.admission.settle(order.account_id, held.request_id).result()
    books.check(order)


@on_sqlite
def test_an_estimate_prices_and_measures_against_every_limit(books: Books) -> None:
    def ask(order: Order, images: int) -> tuple[int, int | None, bool, bool, int]:
        with books.database.read() as session:
            asked = EstimateRequest(images=images)
            quote = estimate(session, order.account_id, order.key_id, order.model, asked, books.clock())
        return (
            quote.cost_micros,
            quote.quota_left,
            quote.fits_quota,
            quote.fits_money,
            quote.seconds_at_rate_limit,
        )

    order = books.open(KeyTerms(quota=4), quota=5, credit_micros=450, queries_per_second=1)
    books.buy(order)
    assert ask(order, 3) == (300, 3, True, True, 0)
    assert ask(order, 4) == (400, 3, False, False, 0)
    assert ask(order, 19)[4] == 10
    books.clock.advance(20 * DAY / SECOND)
    assert ask(order, 4)[1] == 4
    assert books.key(order).queries_used == 1
    assert ask(books.open(), 10**9) == (10**11, None, True, True, 0)


@on_sqlite
def test_an_estimate_counts_what_is_held_for_requests_in_flight(books: Books) -> None:
    def fits_money(order: Order, images: int) -> bool:
        with books.database.read() as session:
            asked = EstimateRequest(images=images)
            return estimate(
                session, order.account_id, order.key_id, order.model, asked, books.clock()
            ).fits_money

    for order in (books.open(credit_micros=400), books.open(spend_limit_micros=400)):
        books.admit(order, images=3)
        assert (fits_money(order, 1), fits_money(order, 2)) == (True, False)
