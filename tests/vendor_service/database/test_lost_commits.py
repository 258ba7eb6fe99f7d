"""Commits of which nobody heard, behind a proxy that cuts there: what is told is what is in the books."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.commit_cutter import CUTS, CommitCutter, Cut
from tests.support.postgres import Postgres
from tests.support.vendor_process import wait_until
from tests.vendor_service.books import Books, opened_books, renewed
from vendor_service.database import schema
from vendor_service.database.session import Database
from vendor_service.database.working_set import Touched, WorkingSet
from vendor_service.database.writer import Writer
from vendor_service.errors import APIError, CommitInDoubt, OperatorError
from vendor_service.money.billing_log import open_billing_log
from vendor_service.money.orders import Order


@pytest.fixture
def cutter(postgres: Postgres) -> Iterator[CommitCutter]:
    with CommitCutter(renewed(postgres)) as opened:
        yield opened


@pytest.fixture
def cut_books(cutter: CommitCutter) -> Iterator[Books]:
    with opened_books(cutter.url) as opened:
        yield opened


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("times", [1, 3])
def test_what_is_told_is_what_is_in_the_books(
    cut_books: Books, cutter: CommitCutter, cut: Cut, times: int
) -> None:
    books, order = cut_books, cut_books.open(quota=4, queries_per_second=1)
    cuts = [cut] * times
    cutter.cut_next(*cuts)
    held = books.admit(order, idempotency_key="k")
    assert not held.replayed
    assert books.account(order).queries_held == 1
    cutter.cut_next(*cuts)
    books.admission.settle(order.account_id, held.request_id).result()
    assert [entry.hold_id for entry in books.entries(order)] == [held.request_id]
    cutter.cut_next(*cuts)
    assert books.admit(order, idempotency_key="k").replayed
    lost = books.admit(order)
    cutter.cut_next(*cuts)
    books.admission.void(order.account_id, lost.request_id).result()
    with pytest.raises(APIError, match="released"):
        books.admission.settle(order.account_id, lost.request_id).result()
    account = books.account(order)
    assert (account.queries_used, account.queries_held, account.ledger_seq) == (1, 0, 1)
    assert cutter.cuts[cut] == 4 * times
    cutter.cut_next(*cuts)
    sold = books.sell(order)
    assert [entry.hold_id for entry in books.entries(order)] == [held.request_id, sold.request_id]
    assert cutter.cuts[cut] == 5 * times
    books.check(order)


def test_a_database_that_stays_away_after_the_commit_is_asked_until_it_says(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are refused after a while; who may have been charged is told the truth."""
    monkeypatch.setattr("vendor_service.database.writer._PATIENCE_SECONDS", 0.3)
    with CommitCutter(renewed(postgres), deafen=True) as cutter, opened_books(cutter.url) as books:
        order = books.open()
        held, other = books.admit(order), books.admit(order)
        cutter.cut_next("before its answer")
        settling = books.admission.settle(order.account_id, held.request_id)
        time.sleep(1)
        assert not settling.done()
        with pytest.raises(APIError, match="busy"):
            books.admission.settle(order.account_id, other.request_id).result(10)
        cutter.deaf = False
        settling.result(20)
        assert len(books.entries(order)) == 1
        books.check(order)


@contextmanager
def locked_where_it_is_cut(books: Books, order: Order, url: str) -> Iterator[psycopg.Connection]:
    """Another transaction locks an account as soon as a commit about it is cut."""
    dialect = books.database.engine.dialect
    commit = dialect.do_commit
    with psycopg.connect(url) as other, pytest.MonkeyPatch.context() as patch:

        def commit_and_lock(connection: Any) -> None:
            try:
                commit(connection)
            except psycopg.OperationalError:
                other.execute("SELECT 1 FROM accounts WHERE id = %s FOR UPDATE", (order.account_id,))
                raise

        patch.setattr(dialect, "do_commit", commit_and_lock)
        yield other


@pytest.mark.parametrize("closes", [False, True])
def test_what_is_in_doubt_is_asked_after_for_longer_than_a_lock_is_waited_for(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, closes: bool
) -> None:
    monkeypatch.setattr("vendor_service.database.writer._PATIENCE_SECONDS", 0.3)
    url = renewed(postgres)
    with CommitCutter(url) as cutter, opened_books(cutter.url) as books, ThreadPoolExecutor(2) as pool:
        order = books.open()
        with locked_where_it_is_cut(books, order, url) as other:
            cutter.cut_next("before its answer")
            selling = pool.submit(books.sell, order)
            time.sleep(1)
            assert not selling.done()
            if closes:  # it waits no longer than it does for a lock
                pool.submit(books.admission.close).result(20)
                with pytest.raises(CommitInDoubt, match="may have been"):
                    selling.result(10)
            other.rollback()
            if not closes:
                selling.result(20)
        assert len(books.entries(order)) == 1
        books.check(order)


def test_who_is_in_doubt_waits_for_no_other_account(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.database.writer._PATIENCE_SECONDS", 0.3)
    url = renewed(postgres)
    with (
        CommitCutter(url, deafen=True) as cutter,
        opened_books(cutter.url) as books,
        closing(Writer(books.database)) as writer,
        psycopg.connect(url) as other,
    ):
        free, stuck = sorted([books.open(), books.open()], key=lambda order: order.account_id)
        begun, go = threading.Event(), threading.Event()
        done_once: list[bool] = []

        def hold_up(_: WorkingSet) -> None:
            begun.set()
            assert go.wait(10)

        def cut(_: WorkingSet) -> None:
            if not done_once:
                cutter.cut_next("before its answer")
            done_once.append(True)

        writer.submit(Touched(free.account_id), hold_up)
        assert begun.wait(10)
        done, waits = (writer.submit(Touched(each.account_id), cut) for each in (free, stuck))  # together
        go.set()
        wait_until(lambda: cutter.deaf)
        other.execute("SELECT 1 FROM accounts WHERE id = %s FOR UPDATE", (stuck.account_id,))
        time.sleep(1)
        assert not done.done()
        cutter.deaf = False
        done.result(20)
        books.buy(free)
        assert not waits.done()
        other.rollback()
        waits.result(10)


def test_what_nobody_can_find_out_is_said_to_be_so(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds in ("_PATIENCE_SECONDS", "_DOUBT_SECONDS"):
        monkeypatch.setattr(f"vendor_service.database.writer.{seconds}", 0.2)
    with CommitCutter(renewed(postgres), deafen=True) as cutter, opened_books(cutter.url) as books:
        order = books.open()
        held = books.admit(order, idempotency_key="k")
        cutter.cut_next("before its answer")
        settling = books.admission.settle(order.account_id, held.request_id)
        with pytest.raises(CommitInDoubt, match="may have been: look before you send it again") as refused:
            settling.result(20)
        assert refused.value.code == "overloaded"
        assert (refused.value.retry_after, refused.value.headers) == (None, {"x-should-retry": "false"})
        cutter.deaf = False
        again = books.admit(order, idempotency_key="k")
        assert (again.replayed, again.request_id) == (True, held.request_id)
        cutter.cut_next("before its answer")
        with open_billing_log(tmp_path / "billing.jsonl"), pytest.raises(CommitInDoubt):
            books.sell(order)
        line = json.loads((tmp_path / "billing.jsonl").read_text())
        assert (line["outcome"], line["code"]) == ("in_doubt", "overloaded")
        cutter.deaf = False
        assert line["request_id"] == books.entries(order)[-1].hold_id
        books.check(order)


def test_many_at_once_are_each_told_what_became_of_them(postgres: Postgres) -> None:
    """Every third commit is cut, on either side, under eight threads that share one writer."""
    with CommitCutter(renewed(postgres)) as cutter, opened_books(cutter.url) as books:
        orders = [books.open(quota=15) for _ in range(4)]
        told: list[int] = [0] * len(orders)
        cutter.share = 0.3
        cutter.cut_next(*CUTS * 3)  # at least, however few commits there are

        def buy(number: int) -> None:
            for _ in range(10):
                try:
                    books.buy(orders[number % 4])
                except APIError as error:
                    codes.add(error.code)
                else:
                    with lock:
                        told[number % 4] += 1

        codes: set[str] = set()
        lock = threading.Lock()
        threads = [threading.Thread(target=buy, args=(number,)) for number in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        cutter.share = 0.0
        assert codes == {"quota_exhausted"}
        assert told == [15] * 4
        assert [len(books.entries(order)) for order in orders] == told
        assert min(cutter.cuts.values()) >= 3
        for order in orders:
            books.check(order)


@pytest.mark.parametrize("cut", CUTS)
def test_a_migration_ends_as_it_says(postgres: Postgres, cut: Cut) -> None:
    url = postgres.create_database()
    with CommitCutter(url) as cutter, closing(Database(cutter.url)) as far, closing(Database(url)) as near:
        cutter.cut_next(cut)
        if cut == "before the commit":
            with pytest.raises(OperatorError, match="cannot be used"):
                schema.upgrade(far)
            assert schema.current(near) is None
        schema.upgrade(far)
        assert cutter.cuts[cut] == 1
        schema.check(near)
