"""Group commit: what waits together is committed together, and nobody suffers for another."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from tests.vendor_service.books import Books
from vendor_service.database.tables import Account
from vendor_service.database.writer import Writer
from vendor_service.errors import Refusal


@pytest.fixture
def writer(books: Books) -> Iterator[Writer]:
    with closing(Writer(books.database)) as opened:
        yield opened


def test_what_waits_shares_a_transaction_and_fails_alone(books: Books, writer: Writer) -> None:
    commits: list[int] = []
    event.listen(books.database.engine, "commit", lambda _: commits.append(1))
    order = books.open()
    begun, go = threading.Event(), threading.Event()

    def hold_up(_: Session) -> None:
        begun.set()
        assert go.wait(10)

    def label(value: str) -> None:
        def work(session: Session) -> str:
            session.get_one(Account, order.account_id).status = value
            return value

        futures.append(writer.submit(order.account_id, work))

    def refuse(_: Session) -> str:
        raise Refusal(ErrorCode.QUOTA_EXHAUSTED, "no")

    futures: list[Future[str]] = []
    first = writer.submit("a", hold_up)
    assert begun.wait(10)
    before = len(commits)
    label("one")
    refused = writer.submit(order.account_id, refuse)
    label("two")
    taken_back = writer.submit(order.account_id, lambda _: "never")
    assert taken_back.cancel()
    go.set()
    first.result(10)
    assert [future.result(10) for future in futures] == ["one", "two"]
    assert isinstance(refused.exception(10), Refusal)
    assert books.account(order).status == "two"
    assert len(commits) - before <= 4  # the one that was held up, the three together, and the readings above


def test_one_that_breaks_the_transaction_breaks_no_other(books: Books, writer: Writer) -> None:
    order = books.open()
    begun, go = threading.Event(), threading.Event()

    def hold_up(_: Session) -> None:
        begun.set()
        assert go.wait(10)

    def work(session: Session) -> str:
        session.get_one(Account, order.account_id).quota = 77
        return "done"

    def broken(session: Session) -> None:
        session.execute(text("INSERT INTO prices SELECT * FROM prices"))

    first = writer.submit("a", hold_up)
    assert begun.wait(10)
    good, bad = writer.submit("b", work), writer.submit("c", broken)
    go.set()
    first.result(10)
    assert good.result(10) == "done"
    assert isinstance(bad.exception(10), IntegrityError)
    assert books.account(order).quota == 77
