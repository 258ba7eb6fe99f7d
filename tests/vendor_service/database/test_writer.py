"""Group commit: what waits together is committed together, and nobody suffers for another."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from shared.errors import ErrorCode
from tests.support.vendor_process import wait_until
from tests.vendor_service.books import HOLD_SECONDS, Books, on_postgres
from vendor_service.database.working_set import Touched, WorkingSet
from vendor_service.database.writer import Writer
from vendor_service.errors import APIError, RowLocked


@pytest.fixture
def writer(books: Books) -> Iterator[Writer]:
    with closing(Writer(books.database)) as opened:
        yield opened


@contextmanager
def held_up(writer: Writer, touched: Touched) -> Iterator[None]:
    """A transaction is under way, so what is submitted meanwhile waits together for the next one."""
    begun, go = threading.Event(), threading.Event()

    def hold_up(_: WorkingSet) -> None:
        begun.set()
        assert go.wait(10)

    first = writer.submit(touched, hold_up)
    assert begun.wait(10)
    yield
    go.set()
    first.result(10)


def has_turn(writer: Writer, account_id: str) -> bool:
    """Whether a thread waits for an account."""
    found = writer._deferred.get(account_id)
    return found is not None and found.has_turn


def deferred(writer: Writer, account_id: str) -> int:
    """How much is deferred for an account, beside what a thread has in hand."""
    found = writer._deferred.get(account_id)
    return 0 if found is None else len(found.items)


def test_what_waits_shares_a_transaction_and_fails_alone(books: Books, writer: Writer) -> None:
    commits: list[int] = []
    event.listen(books.database.engine, "commit", lambda _: commits.append(1))
    order = books.open()
    touched = Touched(order.account_id)

    def label(value: str) -> None:
        def work(rows: WorkingSet) -> str:
            rows.account(order.account_id).status = value
            return value

        futures.append(writer.submit(touched, work))

    def refuse(_: WorkingSet) -> str:
        raise APIError(ErrorCode.QUOTA_EXHAUSTED, "no")

    futures: list[Future[str]] = []
    with held_up(writer, Touched("a")):
        before = len(commits)
        label("one")
        refused = writer.submit(touched, refuse)
        label("two")
        taken_back = writer.submit(touched, lambda _: "never")
        assert taken_back.cancel()
    assert [future.result(10) for future in futures] == ["one", "two"]
    assert isinstance(refused.exception(10), APIError)
    assert books.account(order).status == "two"
    assert len(commits) - before <= 4  # the one that was held up, the three together, and the readings above


def test_what_is_submitted_once_it_is_closed_is_refused_and_not_waited_for(books: Books) -> None:
    writer = Writer(books.database)
    writer.close()
    refused = writer.submit(Touched("acct"), lambda _: None)
    with pytest.raises(APIError) as raised:
        refused.result(timeout=20)
    assert raised.value.code == ErrorCode.SHUTTING_DOWN


def test_where_several_come_at_once_a_transaction_waits_for_more(
    books: Books, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.database.work._GATHER_SECONDS", 60.0)
    touched = Touched(books.open().account_id)

    def transaction(rows: WorkingSet) -> WorkingSet:
        return rows

    def submitted() -> Future[WorkingSet]:
        return writer.submit(touched, transaction)

    assert submitted().result(10) is not submitted().result(10)  # who comes alone waits for nobody
    with held_up(writer, touched):
        together = [submitted(), submitted()]
    assert together[0].result(10) is together[1].result(10)
    for _ in range(2):
        early = submitted()
        time.sleep(0.1)
        late = submitted()  # as many as the transactions before did: it waits for no more
        assert early.result(10) is late.result(10)


@pytest.mark.parametrize("busy", [True, False])
def test_while_the_process_is_busy_a_transaction_waits_for_longer(
    books: Books, writer: Writer, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    asked: list[float] = []  # before and after each time that it waits

    def process_time() -> float:
        asked.append(2 * time.monotonic() if busy else 0.0)
        return asked[-1]

    monkeypatch.setattr("vendor_service.database.work._GATHER_SECONDS", 1.0)
    monkeypatch.setattr("time.process_time", process_time)
    touched = Touched(books.open().account_id)
    with held_up(writer, touched):
        together = [writer.submit(touched, lambda rows: rows) for _ in range(2)]
    assert together[0].result(10) is together[1].result(10)
    early = writer.submit(touched, lambda rows: rows)
    if busy:
        wait_until(lambda: len(asked) > 2)  # it waits once more
        assert writer.submit(touched, lambda rows: rows).result(10) is early.result(10)
    else:
        early.result(10)
        assert len(asked) == 2


def test_after_many_came_at_once_who_comes_alone_waits_for_others_once(
    books: Books, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.database.work._GATHER_SECONDS", 0.1)
    touched = Touched(books.open().account_id)
    with held_up(writer, touched):
        together = [writer.submit(touched, lambda rows: rows) for _ in range(5)]
    assert len({id(each.result(10)) for each in together}) == 1
    writer.submit(touched, lambda rows: rows).result(10)
    monkeypatch.setattr("vendor_service.database.work._GATHER_SECONDS", 60.0)
    writer.submit(touched, lambda rows: rows).result(10)


def test_one_that_breaks_the_transaction_breaks_no_other(books: Books, writer: Writer) -> None:
    order = books.open()
    touched = Touched(order.account_id)

    def work(rows: WorkingSet) -> str:
        rows.account(order.account_id).quota = 77
        return "done"

    def broken(rows: WorkingSet) -> None:
        rows.session.execute(text("INSERT INTO prices SELECT * FROM prices"))

    with held_up(writer, Touched("a")):
        good, bad = writer.submit(touched, work), writer.submit(touched, broken)
    assert good.result(10) == "done"
    assert isinstance(bad.exception(10), IntegrityError)
    assert books.account(order).quota == 77


@on_postgres
def test_a_commit_that_nobody_heard_of_counts_once(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    order = books.open(quota=3)
    dialect = books.database.engine.dialect
    commit, numbers = dialect.do_commit, count(1)

    def commit_and_hang_up(connection: Any) -> None:
        commit(connection)
        if threading.current_thread().name == "books" and next(numbers) % 2:
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(dialect, "do_commit", commit_and_hang_up)
    for number in range(3):
        assert not books.buy(order, idempotency_key=str(number)).replayed
    assert books.buy(order, idempotency_key="0").replayed
    with pytest.raises(APIError, match="quota"):
        books.buy(order)
    assert next(numbers) > 2 * 3 * 2  # every hold and every charge was committed, and then tried again
    assert len(books.entries(order)) == 3
    books.check(order)


@on_postgres
def test_a_connection_that_is_cut_undoes_and_repeats_the_work(books: Books, writer: Writer) -> None:
    attempts: list[int] = []

    def work(rows: WorkingSet) -> str:
        attempts.append(1)
        rows.account(order.account_id).quota = 77
        if len(attempts) == 1:
            with psycopg.connect(books.url, autocommit=True) as other:
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
        return "done"

    order = books.open()
    assert writer.submit(Touched(order.account_id), work).result(20) == "done"
    assert len(attempts) == 2
    assert books.account(order).quota == 77


@contextmanager
def locked(url: str, statement: str, value: str) -> Iterator[psycopg.Connection]:
    """Another transaction holds a row, until its connection is told to go on or the context ends."""
    with psycopg.connect(url) as other:
        other.execute(statement.encode(), (value,))
        yield other


def waits_for_a_lock(other: psycopg.Connection) -> bool:
    """Whether a transaction on the same database waits for what another one has locked."""
    return waiting_for_locks(other) > 0


def waiting_for_locks(other: psycopg.Connection) -> int:
    """How many such transactions there are now."""
    other.execute(b"SELECT pg_stat_clear_snapshot()")  # it would tell the same until its transaction ends
    waiting = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    found = other.execute(f"SELECT count(*) {waiting}".encode()).fetchone()
    return 0 if found is None else int(found[0])


ACCOUNT = "SELECT 1 FROM accounts WHERE id = %s FOR UPDATE"
KEY = "UPDATE api_keys SET label = 'changed' WHERE id = %s"


@pytest.mark.parametrize("statement", [ACCOUNT, KEY])
@on_postgres
def test_a_locked_account_holds_up_nobody_else_and_goes_on_once(books: Books, statement: str) -> None:
    slow, quick = books.open(quota=6), books.open(quota=20)
    row = slow.account_id if statement == ACCOUNT else slow.key_id
    with ThreadPoolExecutor(12) as pool:
        with locked(books.url, statement, row):
            stuck = [pool.submit(books.buy, slow, idempotency_key=str(n % 6)) for n in range(9)]
            began = time.monotonic()
            for _ in range(20):
                books.buy(quick)
            assert time.monotonic() - began < 5
            assert not any(each.done() for each in stuck)
            assert books.account(slow).queries_held == 0
        wait_until(lambda: all(each.done() for each in stuck))
    failed = {each.exception().code for each in stuck if each.exception()}  # type: ignore[union-attr]
    assert failed <= {"idempotency_in_flight"}
    assert (len(books.entries(slow)), len(books.entries(quick))) == (6, 20)
    books.check(slow)
    books.check(quick)


@on_postgres
def test_what_comes_while_an_account_is_locked_is_done_in_one_turn_and_in_order(
    books: Books, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.database.writer._TURN_SECONDS", 30.0)
    account_id = books.open().account_id
    ended: list[str] = []
    for end in ("commit", "rollback"):
        event.listen(books.database.engine, end, lambda _, end=end: ended.append(end))
    done: list[int] = []

    def submit(number: int) -> "Future[None]":
        return writer.submit(Touched(account_id), lambda _: done.append(number))

    with locked(books.url, ACCOUNT, account_id):
        pieces = [submit(0)]
        wait_until(lambda: has_turn(writer, account_id))
        tried = len(ended)
        for number in range(1, 6):
            pieces.append(submit(number))
            wait_until(lambda: deferred(writer, account_id) == len(pieces) - 1)
    for piece in pieces:
        piece.result(10)
    assert done == [0, 1, 2, 3, 4, 5]
    assert len(ended) == tried + 1


@pytest.mark.parametrize("closes", [False, True])
@on_postgres
def test_what_comes_too_late_for_a_turn_has_the_next_or_is_tried_again_once_nobody_locks(
    books: Books, writer: Writer, closes: bool
) -> None:
    with ThreadPoolExecutor(1) as pool:
        touched = Touched(books.open().account_id)
        done: list[tuple[int, str]] = []
        begun, go = [threading.Event() for _ in range(5)], [threading.Event() for _ in range(5)]

        def submit(number: int) -> "Future[None]":
            def work(_: WorkingSet) -> None:
                begun[number].set()
                assert go[number].wait(10)
                done.append((number, threading.current_thread().name.partition("_")[0]))

            return writer.submit(touched, work)

        def wait_for(waiting: int) -> None:
            wait_until(lambda: deferred(writer, touched.account_id) == waiting)

        with locked(books.url, ACCOUNT, touched.account_id) as other:
            pieces = [submit(0)]
            wait_until(lambda: waits_for_a_lock(other))
        assert begun[0].wait(10)
        pieces.append(submit(1))
        wait_for(1)
        go[0].set()
        assert begun[1].wait(10)  # the second turn, which found the account free
        pieces += [submit(number) for number in (2, 3, 4)]
        wait_for(3)
        if closes:
            closing_it = pool.submit(writer.close)
            wait_until(lambda: writer._queue._closed)
        for each in go:
            each.set()
        for piece in pieces:
            piece.result(10)
        wait_until(lambda: not writer._deferred)
        apart, together = "books-apart", "books"
        assert done == [(0, apart), (1, apart), (2, together), (3, together), (4, together)]
        if closes:
            closing_it.result(10)


@on_postgres
def test_a_turn_of_which_nobody_knows_whether_it_was_committed_keeps_no_other_waiting(
    books: Books, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.database.writer._PATIENCE_SECONDS", 0.5)
    touched = Touched(books.open().account_id)
    dialect = books.database.engine.dialect
    commit, known, done_by = dialect.do_commit, threading.Event(), list[int]()

    def hang_up(connection: Any) -> None:
        if threading.get_ident() in done_by and not known.is_set():
            done_by.clear()
            connection.dbapi_connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        commit(connection)

    def work(_: WorkingSet) -> str:
        done_by.append(threading.get_ident())
        return "first"

    monkeypatch.setattr(dialect, "do_commit", hang_up)
    with locked(books.url, ACCOUNT, touched.account_id):
        first = writer.submit(touched, work)
        wait_until(lambda: has_turn(writer, touched.account_id))
        writer.submit(Touched("another"), lambda _: None).result(10)
    wait_until(lambda: not writer._deferred)
    assert writer.submit(touched, lambda _: "second").result(10) == "second"
    assert not first.done()
    known.set()
    assert first.result(10) == "first"


@pytest.mark.parametrize("table", ["holds", "projects"])
@on_postgres
def test_a_locked_hold_or_project_holds_up_its_own_account_alone(
    books: Books, writer: Writer, caplog: pytest.LogCaptureFixture, table: str
) -> None:
    slow, quick = books.open_project(books.open()), books.open()
    held = books.admit(slow)
    row = held.request_id if table == "holds" else books.key(slow).project_id
    touched = Touched(slow.account_id, held.request_id, slow.key_id)

    def change(rows: WorkingSet) -> str:
        hold, project = rows.hold(held.request_id), rows.key(slow.key_id).project
        assert hold is not None
        assert project is not None
        hold.replays += 1
        project.quota = (project.quota or 0) + 1
        return "done"

    with locked(books.url, f"SELECT 1 FROM {table} WHERE id = %s FOR UPDATE", str(row)):
        with held_up(writer, Touched("a")):
            stuck = [writer.submit(touched, change)]
            free = writer.submit(Touched(quick.account_id), lambda rows: rows.account(quick.account_id))
            stuck.append(writer.submit(touched, change))
        assert free.result(5).id == quick.account_id  # it has shared a transaction with them
        began = time.monotonic()
        for _ in range(5):
            books.buy(quick)
        settling = books.admission.settle(slow.account_id, held.request_id)
        for _ in range(5):
            books.buy(quick)
        assert time.monotonic() - began < 5
        assert not any(each.done() for each in stuck)
        assert not settling.done()
    assert [each.result(20) for each in stuck] == ["done", "done"]
    settling.result(20)
    assert (len(books.entries(slow)), len(books.entries(quick))) == (1, 10)
    books.check(slow)
    books.check(quick)
    assert "the database does not take changes" not in caplog.text


@on_postgres
def test_a_lock_is_not_waited_for_for_ever(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vendor_service.database.writer._PATIENCE_SECONDS", 0.5)
    order = books.open()
    held = books.admit(order)
    with locked(books.url, ACCOUNT, order.account_id):
        with pytest.raises(APIError, match="busy") as refused:
            books.admit(order)
        assert refused.value.code == ErrorCode.OVERLOADED
        with pytest.raises(APIError, match="busy"):
            books.admission.settle(order.account_id, held.request_id).result()
        assert books.admission.sweep() == 0  # without waiting for what it cannot have
    assert books.entries(order) == []
    books.admission.settle(order.account_id, held.request_id).result()
    books.check(order)


@on_postgres
def test_many_locked_accounts_are_waited_for_in_turn(books: Books) -> None:
    with ExitStack() as locks, ThreadPoolExecutor(24) as pool:
        orders = [books.open(quota=2) for _ in range(12)]  # more than are waited for at once
        for order in orders:
            locks.enter_context(locked(books.url, ACCOUNT, order.account_id))
        stuck = [pool.submit(books.buy, order) for order in orders for _ in range(2)]
        books.buy(books.open())
        locks.close()
        for each in stuck:
            each.result(20)
        for order in orders:
            assert len(books.entries(order)) == 2
            books.check(order)


@on_postgres
def test_an_account_that_is_locked_for_a_moment_does_not_wait_for_many_that_stay_so(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as locks, ThreadPoolExecutor(24) as pool:
        orders = [books.open() for _ in range(20)]  # more than are waited for at once, and more again
        for order in orders:
            locks.enter_context(locked(books.url, ACCOUNT, order.account_id))
        stuck = [pool.submit(books.buy, order) for order in orders]
        wait_until(lambda: len(books.admission._writer._deferred) == len(orders))
        brief = books.open()
        with locked(books.url, ACCOUNT, brief.account_id):
            buying = pool.submit(books.buy, brief)
            wait_until(lambda: brief.account_id in books.admission._writer._deferred)
        buying.result(8)
        assert not any(each.done() for each in stuck)
        locks.close()
        for each in stuck:
            each.result(20)


@on_postgres
def test_a_lock_is_waited_for_from_the_moment_of_asking(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.database.writer._PATIENCE_SECONDS", 3.0)
    with ExitStack() as locks, ThreadPoolExecutor(32) as pool:
        orders = [books.open() for _ in range(32)]
        for order in orders:
            locks.enter_context(locked(books.url, ACCOUNT, order.account_id))
        stuck = [pool.submit(books.buy, order) for order in orders]
        wait_until(lambda: all(each.done() for each in stuck), 11)  # four rounds of three seconds are more
        assert {type(each.exception()) for each in stuck} == {RowLocked}


@on_postgres
def test_holds_are_renewed_beside_one_that_is_locked(books: Books) -> None:
    order = books.open()
    stuck, free = books.admit(order), books.admit(order)
    books.clock.advance(HOLD_SECONDS - 1)
    with locked(books.url, "SELECT 1 FROM holds WHERE id = %s FOR UPDATE", stuck.request_id):
        books.admission.renew(longest_seconds=1000)
    books.clock.advance(1)
    assert books.admission.sweep() == 1
    books.admission.settle(order.account_id, free.request_id).result()
    books.check(order)
