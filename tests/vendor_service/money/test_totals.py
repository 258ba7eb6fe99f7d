"""Running totals, and what is read from them: right, verified, and cheap however long the history is."""

import gc
import re
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from time import perf_counter
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DatabaseError

from shared.billing import GroupBy
from tests.support.figures import holds
from tests.support.long_history import write_history
from tests.vendor_service.books import Books, asking, on_sqlite
from vendor_service.clock import DAY, HOUR, SECOND, from_datetime
from vendor_service.database.tables import Account
from vendor_service.database.view import View
from vendor_service.errors import OperatorError
from vendor_service.money import invoices, ledger, payments, verification
from vendor_service.money.usage import usage_report
from vendor_service.money.verification import verify

GROUPS: tuple[GroupBy, ...] = ("day", "key", "kind")
NOVEMBER, DECEMBER = from_datetime(datetime(2026, 11, 1)), from_datetime(datetime(2026, 12, 1))


@contextmanager
def statements(books: Books) -> Iterator[list[tuple[str, Any]]]:
    """The statements that are executed meanwhile, with their parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    event.listen(books.database.engine, "before_cursor_execute", note)
    yield seen
    event.remove(books.database.engine, "before_cursor_execute", note)


def test_what_shares_a_commit_shares_the_writing_of_totals(books: Books) -> None:
    orders = [asking(books.open(), images=number % 3) for number in range(3)]
    held = [(order, books.admit(order, texts=1).request_id) for order in orders for _ in range(20)]
    with statements(books) as seen, books.database.write():
        settling = [books.admission.settle(order.account_id, request_id) for order, request_id in held]
    # The first of them may have had a transaction for itself; on SQLite all waited for the one above.
    for each in settling:
        each.result()
    commits = sum(statement.startswith("SELECT accounts") for statement, _ in seen)
    written = [parameters for statement, parameters in seen if "INTO ledger_totals" in statement]
    assert len(written) <= commits <= 10
    assert all(len(rows) <= 3 for rows in written if isinstance(rows, list))
    for order in orders:
        books.check(order)


@on_sqlite
def test_usage_of_any_span_is_the_sum_of_its_charges(books: Books) -> None:
    order = books.open()
    begun = books.clock()
    for number in range(12):
        books.buy(order, images=number % 3, texts=number % 2 + 1)
        books.clock.advance(1700)
    with books.locked(order) as (session, account):
        payments.refund(session, account, 1, books.clock())
    entries = [entry for entry in books.entries(order) if entry.kind == "charge"]
    edges = [begun, begun + HOUR, begun + HOUR // 2, begun + 3 * HOUR, begun + 1700 * SECOND, begun + DAY]
    for since in (0, *edges):
        for until in edges:
            with books.database.read() as session:
                total = usage_report(session, View.whole(order.account_id), "day", since, until).total
            within = [entry for entry in entries if since <= entry.created_at < until]
            assert (total.requests, total.images, total.texts, total.cost_micros) == (
                len(within),
                sum(entry.counts["image"] for entry in within),
                sum(entry.counts["text"] for entry in within),
                -sum(entry.amount_micros for entry in within),
            )


@on_sqlite
def test_usage_until_the_last_charge_is_without_it_and_without_payments(books: Books) -> None:
    order = books.open()
    for images in (1, 2):
        books.clock.advance(60)
        with books.locked(order) as (session, account):
            payments.payment(session, account, 50, books.clock(), f"bank {images}")
        books.clock.advance(60)
        books.buy(order, images=images)
    with books.database.read() as session:
        for until, expected in ((books.clock(), (1, 1, 100)), (books.clock() + 1, (2, 3, 300))):
            total = usage_report(session, View.whole(order.account_id), "day", 0, until).total
            assert (total.requests, total.images, total.cost_micros) == expected


def test_a_long_history_is_not_read_for_an_invoice_usage_or_a_page(books: Books) -> None:
    """2,000 entries, and none of the questions reads more than a page of them, by any database's plan."""
    books.clock.now = NOVEMBER
    order = books.open()
    write_history(books.database, order.key_id, 2_000, DECEMBER)
    books.clock.now = DECEMBER + HOUR
    with statements(books) as seen:
        assert books.invoice(order).lines[0].queries == 4_000
        with books.database.read() as session:
            for group_by in GROUPS:
                report = usage_report(session, View.whole(order.account_id), group_by, 0, books.clock())
                assert report.total.requests == 2_000
            assert len(ledger.page(session, View.whole(order.account_id), 1_000, 100)) == 100
    of_ledger = [
        (statement, parameters) for statement, parameters in seen if "FROM ledger_entries" in statement
    ]
    # First and last entry of the invoice, refunds of other months (twice or so), and the page.
    assert len(of_ledger) <= 9
    if books.database.embedded:
        for statement, parameters in of_ledger:
            with books.database.engine.connect() as connection:
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            for step in plan:
                if "ledger_entries" not in step.detail:  # the few credit notes
                    continue
                assert re.search(r"\(account_id=\? AND (seq|corrects_seq)[=><]", step.detail), step.detail
    books.check(order)


def test_verification_says_how_far_it_is_in_memory_that_does_not_grow(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_PAGE", 100)
    monkeypatch.setattr(verification, "_STEP", 200)
    peaks = []
    books.clock.now = NOVEMBER
    for entries in (220, 660):
        order, reported = books.open(), list[int]()
        write_history(books.database, order.key_id, entries, NOVEMBER + entries // 50 * HOUR)
        with books.database.read() as session:
            account = session.get_one(Account, order.account_id)
            gc.collect()  # so that what is garbage is collected at the same places
            tracemalloc.start()
            found = verify(session, account, reported.append)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert (found.problem, found.entries, sum(reported)) == (None, entries, entries)
        assert len(reported) == entries // 200 + 1
    assert peaks[1] < 1.25 * peaks[0]


@pytest.mark.slow
def test_a_million_entries_answer_within_a_second(books: Books) -> None:
    books.clock.now = NOVEMBER
    order = books.open()
    write_history(books.database, order.key_id, 1_000_000, DECEMBER)
    books.clock.now = DECEMBER + HOUR

    def usage(group_by: GroupBy) -> None:
        with books.database.read() as session:
            assert (
                usage_report(session, View.whole(order.account_id), group_by, 0, books.clock()).total.requests
                == 10**6
            )

    def page() -> None:
        with books.database.read() as session:
            assert len(ledger.page(session, View.whole(order.account_id), 500_000, 1000)) == 1000

    questions: dict[str, Callable[[], object]] = {"invoice": partial(books.invoice, order), "page": page}
    questions |= {f"usage by {each}": partial(usage, each) for each in GROUPS}
    for name, question in questions.items():
        began = perf_counter()
        question()
        taken = perf_counter() - began
        print(f"{name}: {taken:.3f} s")
        assert holds(taken, 1, "s"), name
    books.check(order)


def test_a_month_is_summed_up_while_others_and_its_own_account_go_on(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, other = books.open(), books.open()
    books.buy(order)
    books.clock.now = DECEMBER
    meanwhile: list[Any] = []
    summed = invoices.summed

    def summed_slowly(*arguments: Any, **named: Any) -> Any:
        with ThreadPoolExecutor(2) as pool:  # they would wait for the lock, if it were held here
            buying = [pool.submit(books.buy, each) for each in (order, other)]
            meanwhile.extend(each.result(10) for each in buying)
        return summed(*arguments, **named)

    monkeypatch.setattr(invoices, "summed", summed_slowly)
    issued = books.invoice(order)
    monkeypatch.undo()
    assert (issued.final, issued.total_micros, len(meanwhile)) == (True, 100, 2)
    books.check(order)


@on_sqlite
def test_an_invoice_whose_lines_do_not_add_up_is_not_issued(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = books.open()
    books.buy(order)
    books.clock.now = DECEMBER
    monkeypatch.setattr(invoices, "_lines", lambda *_: [])
    with pytest.raises(OperatorError, match="ledger verify"):
        books.invoice(order)
    monkeypatch.undo()
    assert books.invoice(order).total_micros == 100


def test_a_final_invoice_is_stored_once_and_given_out_as_stored(books: Books) -> None:
    order = books.open()
    books.buy(order)
    books.clock.now = DECEMBER
    with ThreadPoolExecutor(4) as pool:
        issued = [each.result() for each in [pool.submit(books.invoice, order) for _ in range(8)]]
    assert all(each == issued[0] for each in issued)
    with books.database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM final_invoices")) == 1
    with statements(books) as seen:
        assert books.invoice(order) == issued[0]
    assert not any("ledger_totals" in statement or "UPDATE" in statement for statement, _ in seen)
    # A month without anything to bill would be a number for nothing.
    books.clock.now += 62 * DAY
    assert (books.invoice(order, "2026-12").final, books.invoice(order, "2026-12").number) == (True, None)
    with books.database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM final_invoices")) == 1
    books.check(order)
    books.tamper("UPDATE final_invoices SET content = replace(content, '100', '101')")
    assert books.problem(order) == (
        "the final invoice of 2026-11 is not what the entries of the month add up to"
    )


def test_final_invoices_refuse_every_change(books: Books) -> None:
    order = books.open()
    books.buy(order)
    books.clock.now = DECEMBER
    issued = books.invoice(order)
    changes = ["UPDATE final_invoices SET content = ''", "DELETE FROM final_invoices"]
    columns = "account_id, month, ledger_seq, issued_at, content"
    again = f"INTO final_invoices ({columns}) SELECT account_id, month, ledger_seq, 1, '' FROM final_invoices"
    if books.database.embedded:
        changes.append(f"INSERT OR REPLACE {again}")
        changes.append(
            f"INSERT OR REPLACE INTO final_invoices (rowid, {columns}) "
            "SELECT rowid, account_id, '2026-10', 1, 1, '' FROM final_invoices"
        )
    else:
        changes.append("TRUNCATE final_invoices")
        changes.append(
            f"INSERT {again} ON CONFLICT ON CONSTRAINT pk_final_invoices DO UPDATE SET content = ''"
        )
    for change in changes:
        with pytest.raises(DatabaseError, match="append-only"), books.database.write() as session:
            session.execute(text(change))
    assert books.invoice(order) == issued


ENTRY = (
    "INSERT INTO ledger_entries (account_id, seq, kind, amount_micros, counts, prices, "
    "model, model_fingerprint, key_id, hold_id, created_at, previous_hash, entry_hash, "
    "reference, reason) "
    "SELECT account_id, {seq}, kind, amount_micros, counts, prices, model, "
    "model_fingerprint, key_id, {hold}, created_at, previous_hash, 'forged', {reference}, reason "
    "FROM ledger_entries WHERE seq = 1"
)


def test_no_entry_is_replaced_for_any_of_its_unique_values(books: Books) -> None:
    """By an outsider's own connection too, which has set no pragma."""
    order = books.open()
    books.buy(order)
    with books.locked(order) as (session, account):
        payments.payment(session, account, 1, books.clock(), "bank 1")
    forgeries = [
        ENTRY.format(seq=1, hold="NULL", reference="NULL"),
        ENTRY.format(seq=9, hold="hold_id", reference="NULL"),
        ENTRY.format(seq=9, hold="NULL", reference="'bank 1'"),
    ]
    if books.database.embedded:
        forgeries.append(
            forgeries[0]
            .replace("(account_id, seq", "(rowid, account_id, seq")
            .replace("SELECT account_id, 1", "SELECT rowid, account_id, 9")
        )
        forgeries = [each.replace("INSERT INTO", "INSERT OR REPLACE INTO") for each in forgeries]
    else:
        forgeries = [
            f"{each} ON CONFLICT {target} DO UPDATE SET amount_micros = 0"
            for each, target in zip(
                forgeries,
                (
                    "ON CONSTRAINT pk_ledger_entries",
                    "ON CONSTRAINT uq_ledger_entries_hold_id",
                    "(account_id, reference) WHERE reference IS NOT NULL",
                ),
                strict=True,
            )
        ]
        forgeries.append("TRUNCATE ledger_entries")
    for forgery in forgeries:
        with pytest.raises(DatabaseError, match="append-only"), books.database.engine.begin() as connection:
            connection.execute(text(forgery))
    assert len(books.entries(order)) == 2
    books.check(order)
