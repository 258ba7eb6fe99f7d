"""What Prometheus is told of the books: accounts, and whether the ledger was found in order."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from tests.support.forking import forked_programs
from tests.vendor_service.books import Books
from tests.vendor_service.local_vendor import LocalVendor
from vendor_service.clock import DAY
from vendor_service.database.tables import Account, AuditHead
from vendor_service.metrics import Metrics
from vendor_service.money.account_metrics import AccountMetrics
from vendor_service.run import audit as auditing
from vendor_service.run.audit import Audit


def told(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"tuition_{name}", labels)


@pytest.fixture
def forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Audits run the vendor's command in a forked process, which starts sooner than an interpreter."""
    with forked_programs(tmp_path) as programs:
        monkeypatch.setattr(auditing, "_VENDOR", (str(programs / "vendor"),))
        yield


@pytest.mark.usefixtures("forked")
def test_an_audit_tells_of_books_that_are_not_in_order(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    audit = Audit(books.database, metrics, every_hours=24)
    order = books.open()
    books.buy(order)
    anyio.run(audit.once)
    verified = told(metrics, "ledger_verified_timestamp_seconds")
    assert told(metrics, "ledger_faulty_accounts") == 0
    assert told(metrics, "audit_log_faulty") == 0
    with books.database.write() as session:
        session.get_one(Account, order.account_id).queries_used += 1
        session.get_one(AuditHead, 1).seq += 1
    with caplog.at_level(logging.ERROR):
        anyio.run(audit.once)
    assert told(metrics, "ledger_faulty_accounts") == 1
    assert "queries_used" in caplog.text
    assert told(metrics, "audit_log_faulty") == 1
    assert "the audit log is not in order" in caplog.text
    assert (told(metrics, "ledger_verified_timestamp_seconds") or 0) > (verified or 0)


@pytest.mark.parametrize("books", ["sqlite"], indirect=True)
def test_an_audit_runs_this_vendor_in_an_interpreter_of_its_own(books: Books) -> None:
    out, err = anyio.run(Audit(books.database, Metrics(), every_hours=24)._verify, "ledger")
    assert (out.strip(), err) == (b"[]", b"")


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("books", ["sqlite"], indirect=True)
def test_an_audit_that_cannot_be_made_is_no_clean_bill(
    books: Books, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    audit = Audit(books.database, metrics, every_hours=24)
    assert told(metrics, "ledger_verified_timestamp_seconds") == 0
    monkeypatch.setattr(audit, "_url", "sqlite:////no/such/folder/books.db")
    anyio.run(audit.once)
    assert told(metrics, "ledger_verified_timestamp_seconds") == 0
    assert "could not be verified" in caplog.text


@pytest.mark.parametrize("books", ["sqlite"], indirect=True)
def test_an_audit_for_which_the_system_has_no_room_is_told_of(
    books: Books, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    audit = Audit(books.database, metrics, every_hours=24)

    async def refuse(*_: object, **_options: object) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    anyio.run(audit.once)
    assert told(metrics, "ledger_verified_timestamp_seconds") == 0
    assert "the ledger could not be verified: Resource temporarily unavailable" in caplog.text
    assert "the audit log could not be verified: Resource temporarily unavailable" in caplog.text


def test_accounts_are_told_with_what_they_used_in_this_period(books: Books) -> None:
    metrics = Metrics()
    metrics.registry.register(AccountMetrics(books.database, books.clock))
    monthly, forever = books.open(quota=5, coverage_limit=9), books.open(quota_period="total")
    for order in (monthly, forever):
        books.buy(order, buckets=[3])
    names = [books.account(order).name for order in (monthly, forever)]
    assert [told(metrics, "account_queries_used", account=name) for name in names] == [1, 1]
    assert [told(metrics, "account_quota", account=name) for name in names] == [5, None]
    assert told(metrics, "account_spent_micros", account=names[0]) == 100
    assert told(metrics, "account_buckets_covered", account=names[0]) == 1
    books.clock.now += 31 * DAY
    assert [told(metrics, "account_queries_used", account=name) for name in names] == [0, 1]


def test_accounts_that_spent_much_in_an_earlier_month_take_no_places(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.money.account_metrics._MOST_ACCOUNTS", 2)
    metrics = Metrics()
    metrics.registry.register(AccountMetrics(books.database, books.clock))
    gone, stays, forever = books.open(), books.open(), books.open(quota_period="total")
    for order, images in ((gone, 9), (stays, 1), (forever, 5)):
        books.buy(order, images=images)
    books.clock.now += 31 * DAY
    books.buy(stays)
    names = [books.account(order).name for order in (gone, stays, forever)]
    assert [told(metrics, "account_spent_micros", account=name) for name in names] == [None, 100, 500]


def test_accounts_are_left_out_while_the_database_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with LocalVendor(tmp_path) as vendor:
        vendor.key()
        assert 'tuition_account_queries_used{account="account-0"} 0.0' in vendor.http.get("/metrics").text
        with vendor.books.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE accounts RENAME TO elsewhere")
        answer = vendor.http.get("/metrics")
        with vendor.books.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO accounts")
    assert answer.status_code == 200
    assert "tuition_queue_inputs" in answer.text
    assert "tuition_account_queries_used{" not in answer.text
