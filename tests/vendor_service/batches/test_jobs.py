"""Jobs on the books of both databases: each chunk charged once, whoever works on it and whoever dies."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.batches import WINDOW_SECONDS, BatchObject, BatchRequest
from tests.support.commit_cutter import CommitCutter, Cut
from tests.support.postgres import Postgres
from tests.vendor_service.agreed import suspend
from tests.vendor_service.batches.bulk_books import BulkProcess
from tests.vendor_service.books import HOLD_SECONDS, Books, on_postgres, on_sqlite, opened_books, renewed
from tests.vendor_service.database.test_writer import locked
from vendor_service.accounts.keys import KeyTerms, revoke_key
from vendor_service.acts import accounts, keys, projects
from vendor_service.acts.act import Act
from vendor_service.batches import book
from vendor_service.batches.jobs import JobTerms
from vendor_service.batches.leases import LEASE_SECONDS
from vendor_service.clock import SECOND
from vendor_service.database.tables import (
    Account,
    BatchChunk,
    BatchJob,
    Hold,
    StoredFile,
    WebhookEvent,
)
from vendor_service.database.view import View
from vendor_service.errors import APIError
from vendor_service.money import prices
from vendor_service.money.admission import Admission
from vendor_service.money.billing_log import open_billing_log
from vendor_service.money.orders import Order


def process(books: Books) -> BulkProcess:
    return BulkProcess(books.database, books.clock, books.admission)


def hold_of(books: Books, batch_id: str) -> Hold:
    with books.database.read() as session:
        return session.get_one(Hold, session.get_one(BatchJob, batch_id).hold_id)


def test_each_chunk_is_charged_as_it_is_done_and_what_fails_is_released(books: Books) -> None:
    order, bulk = books.open(quota=20, credit_micros=1000), process(books)
    job = bulk.begin(order, (3, 1), (0, 2), (2, 0))
    assert (job.held_micros, books.account(order).queries_held) == (3 * 50 + 10 + 20 + 100, 8)
    books.check(order)
    for images, spent, held in ((None, 160, 120), (0, 180, 100), (1, 230, 0)):
        claim = bulk.claim()
        assert claim is not None
        bulk.settle(claim, images=images)
        account = books.account(order)
        assert (account.spent_micros, account.held_micros) == (spent, held)
        books.check(order)
    done = bulk.jobs.get(View.whole(order.account_id), job.id)
    assert (done.status, done.cost_micros, done.held_micros, bulk.claim()) == ("completed", 230, 0, None)
    assert [(entry.counts, entry.prices["image"]) for entry in books.entries(order)[1:]] == [
        ({"image": 3, "text": 1}, 50),
        ({"image": 0, "text": 2}, 50),
        ({"image": 1, "text": 0}, 50),
    ]
    assert books.invoice(order).total_micros == 230


@on_sqlite
def test_every_decision_about_a_job_is_a_line_of_the_billing_log_and_counted(
    books: Books, tmp_path: Path
) -> None:
    order, bulk = books.open(quota=4), process(books)
    log = tmp_path / "billing.jsonl"
    with open_billing_log(log):
        with pytest.raises(APIError, match="quota"):
            bulk.begin(order, (9, 0))
        first = bulk.begin(order, (1, 2))
        claim = bulk.claim()
        assert claim is not None
        bulk.settle(claim)
        second, file = begin_keyed(bulk, order)
        assert begin_keyed(bulk, order, file)[0] == second
        for _ in range(2):
            bulk.jobs.cancel(View.whole(order.account_id), second.id, "key:1")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = [(each["outcome"], each["images"], each["texts"], each["cost_micros"]) for each in lines]
    assert told == [
        ("refused", 9, 0, 0),
        ("held", 1, 2, 70),
        ("settled", 1, 2, 70),
        ("voided", 0, 0, 0),
        ("held", 1, 0, 50),
        ("replayed", 1, 0, 0),
        ("voided", 1, 0, 0),
    ]
    holds = [hold_of(books, each.id).id for each in (first, second)]
    assert [lines[place]["request_id"] for place in (1, 3, 4, 6)] == [holds[0]] * 2 + [holds[1]] * 2
    assert (lines[0]["code"], lines[0]["account_id"]) == ("quota_exhausted", order.account_id)
    counted = {
        outcome: bulk.metrics.registry.get_sample_value("tuition_billing_total", {"outcome": outcome})
        for outcome in ("held", "replayed", "refused", "voided")
    }
    assert counted == {"held": 2, "replayed": 1, "refused": 1, "voided": 1}
    books.clock.advance(WINDOW_SECONDS)
    bulk.begin(order, (1, 0))
    books.clock.advance(WINDOW_SECONDS)
    assert bulk.jobs.end_overdue() == 1
    assert bulk.metrics.registry.get_sample_value("tuition_billing_total", {"outcome": "voided"}) == 2


def begin_keyed(
    bulk: BulkProcess, order: Order, file: StoredFile | None = None
) -> tuple[BatchObject, StoredFile]:
    """Begin a job of one image under an idempotency key, or find it; the job and its file."""
    file = file or bulk.send(order, (1, 0))
    terms = JobTerms(View.whole(order.account_id), "", order.key_id, idempotency_key="key")
    asked = BatchRequest(input_file_id=file.id, endpoint="/embed", completion_window="24h")
    return bulk.jobs.begin(terms, asked, file, bulk.model), file


@on_sqlite
def test_a_chunk_of_which_nothing_is_answered_has_no_entry(books: Books) -> None:
    order, bulk = books.open(), process(books)
    job = bulk.begin(order, (2, 0), (1, 0))
    for _ in range(2):
        claim = bulk.claim()
        assert claim is not None
        assert bulk.settle(claim, images=0) is None
    assert (books.entries(order), books.account(order).queries_held) == ([], 0)
    assert bulk.jobs.get(View.whole(order.account_id), job.id).status == "completed"
    books.check(order)


def receipts(books: Books, batch_id: str, account_id: str) -> list[tuple[int, int, int, str, str, str]]:
    """What the receipts of a job say."""
    charges = process(books).jobs.charges(View.whole(account_id), batch_id, -1, 10)
    return [
        (
            each.number,
            each.first_line,
            each.lines,
            *(each.entry.entry_hash, each.request_hash, each.answer_hash),
        )
        for each in charges
    ]


@on_sqlite
def test_a_job_has_its_receipts_when_its_file_is_deleted(books: Books) -> None:
    order, bulk = books.open(), process(books)
    file = bulk.send(order, (3, 1), (1, 0), (0, 2))
    job = bulk.begin_with(order, file)
    for images in (None, 0, None):  # nothing is answered of the second chunk
        claim = bulk.claim()
        assert claim is not None
        bulk.settle(claim, images=images)
    before = receipts(books, job.id, order.account_id)
    assert [each[:3] for each in before] == [(0, 0, 1), (2, 2, 1)]
    bulk.files.let_go(View.whole(order.account_id), file.id)
    bulk.files.remove(file.id)
    assert receipts(books, job.id, order.account_id) == before


def chunks_of(books: Books, batch_id: str) -> list[tuple[int, str]]:
    with books.database.read() as session:
        mine = select(BatchChunk.number, BatchChunk.state).where(BatchChunk.batch_id == batch_id)
        return [(number, state) for number, state in session.execute(mine.order_by(BatchChunk.number))]


@on_sqlite
def test_a_chunk_is_written_down_when_it_is_taken_and_not_when_a_job_begins(books: Books) -> None:
    order, bulk = books.open(), process(books)
    job = bulk.begin(order, *[(1, 0)] * 4)
    assert chunks_of(books, job.id) == []
    first, second = bulk.claim(), bulk.claim()
    assert first is not None
    assert second is not None
    bulk.settle(second)
    bulk.leases.give_back(first)
    again = bulk.claim()
    assert again is not None
    assert again.key == first.key
    assert chunks_of(books, job.id) == [(0, "waiting"), (1, "done")]
    done = bulk.jobs.cancel(View.whole(order.account_id), job.id, "os:test")
    assert (done.status, done.cost_micros, bulk.claim()) == ("cancelled", 50, None)
    assert chunks_of(books, job.id) == [(0, "waiting"), (1, "done")]
    books.check(order)


@on_sqlite
def test_a_project_begins_so_many_jobs_a_day_the_cancelled_included(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.batches.jobs._MOST_A_DAY", 2)
    order, bulk = books.open(), process(books)
    file = bulk.send(order, (1, 0))
    for _ in range(2):
        job = bulk.begin_with(order, file)
        bulk.jobs.cancel(View.whole(order.account_id), job.id, "os:test")
        books.clock.advance(3600)
    with pytest.raises(APIError, match="began 2 jobs within a day") as refused:
        bulk.begin_with(order, file)
    assert (refused.value.code, refused.value.retry_after) == ("rate_limited", 22 * 3600)
    beside = books.open_project(order)  # another project may
    terms = JobTerms(View.whole(order.account_id), str(books.key(beside).project_id), beside.key_id)
    asked = BatchRequest(input_file_id=file.id, endpoint="/embed", completion_window="24h")
    bulk.jobs.begin(terms, asked, file, bulk.model)
    bulk.begin(books.open(), (1, 0))  # and another account
    books.clock.advance(22 * 3600)
    bulk.begin_with(order, file)
    with pytest.raises(APIError, match="began 2 jobs within a day"):
        bulk.begin_with(order, file)
    books.check(order)


@on_sqlite
def test_the_price_is_that_of_the_beginning(books: Books) -> None:
    order, bulk = books.open(plan="standard"), process(books)
    bulk.begin(order, (2, 0))
    with books.database.write() as session:
        prices.set_price(session, "standard", "icon-clip", "image", 1000, books.clock())
        prices.set_price(session, "standard", "icon-clip", "batch-percent", 100, books.clock())
    claim = bulk.claim()
    assert claim is not None
    bulk.settle(claim)
    assert books.account(order).spent_micros == 100
    assert bulk.begin(order, (1, 1)).held_micros == 1020
    books.check(order)


def test_who_is_believed_to_be_gone_charges_nothing_any_more(books: Books) -> None:
    order, bulk = books.open(), process(books)
    bulk.begin(order, (2, 0))
    first = bulk.claim()
    assert first is not None
    assert bulk.claim() is None
    books.clock.advance(LEASE_SECONDS - 1)
    bulk.leases.renew([first])
    books.clock.advance(LEASE_SECONDS - 1)
    assert bulk.claim() is None
    books.clock.advance(2)
    second = bulk.claim()
    assert second is not None
    with pytest.raises(APIError, match="no longer this process's") as refused:
        bulk.settle(first)
    assert refused.value.code == "conflict"
    assert bulk.leases.give_back(first)  # and what it wrote is of no use
    assert books.entries(order) == []
    part, done = bulk.done(second)
    for _ in range(2):  # as it is done again after a commit of which nobody heard
        bulk.admission.settle_part(order.account_id, second.job.hold_id, part, done).result()
    assert [entry.amount_micros for entry in books.entries(order)] == [-100]
    assert not bulk.leases.give_back(second)
    books.check(order)


def test_nothing_is_charged_of_a_job_that_ended_while_a_chunk_was_in_hand(books: Books) -> None:
    order, bulk = books.open(), process(books)
    job = bulk.begin(order, (1, 0), (1, 0))
    claim = bulk.claim()
    assert claim is not None
    bulk.jobs.cancel(View.whole(order.account_id), job.id, "os:test")
    with pytest.raises(APIError, match="the job has ended") as refused:
        bulk.settle(claim)
    assert refused.value.code == "deadline_exceeded"  # and no `conflict`: nobody else does it
    assert books.entries(order) == []
    assert chunks_of(books, job.id) == [(0, "waiting")]
    books.check(order)


@on_sqlite
def test_a_vendor_that_starts_alone_takes_up_at_once_what_was_left(books: Books) -> None:
    order, bulk = books.open(), process(books)
    job = bulk.begin(order, (1, 0))
    books.admit(order)
    assert bulk.claim() is not None
    assert books.admission.void_abandoned() == 1
    bulk.leases.release_abandoned()
    assert hold_of(books, job.id).state == "open"
    claim = bulk.claim()
    assert claim is not None
    bulk.settle(claim)
    assert books.account(order).spent_micros == 50
    books.check(order)


@pytest.mark.parametrize("table", ["batches", "batch_chunks"])
@on_postgres
def test_a_chunk_of_a_locked_job_is_settled_later_and_nobody_else_waits(books: Books, table: str) -> None:
    order, other, bulk = books.open(), books.open(), process(books)
    job = bulk.begin(order, (1, 0))
    claim = bulk.claim()
    assert claim is not None
    column = "id" if table == "batches" else "batch_id"
    with locked(books.url, f"SELECT 1 FROM {table} WHERE {column} = %s FOR UPDATE", job.id):
        part, done = bulk.done(claim)
        settling = bulk.admission.settle_part(order.account_id, claim.job.hold_id, part, done)
        began = time.monotonic()
        for _ in range(5):
            books.buy(other)
        assert time.monotonic() - began < 5
        assert not settling.done()
    settling.result(20)
    assert bulk.jobs.get(View.whole(order.account_id), job.id).status == "completed"
    assert [entry.amount_micros for entry in books.entries(order)] == [-50]
    books.check(order)
    books.check(other)


@on_sqlite
def test_a_job_that_cannot_be_ended_keeps_no_other_from_it(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk, orders = process(books), [books.open() for _ in range(3)]
    jobs = [bulk.begin(order, (1, 0)) for order in orders]
    end, faulty = book.end, list[str]()

    def end_but_one(session: Session, account: Account, job: BatchJob, *rest: Any) -> None:
        faulty.append(job.id)
        if job.id == faulty[0]:
            raise ZeroDivisionError
        end(session, account, job, *rest)

    def states() -> list[str]:
        both = zip(orders, jobs, strict=True)
        return sorted(bulk.jobs.get(View.whole(order.account_id), job.id).status for order, job in both)

    books.clock.advance(24 * 3600)
    with monkeypatch.context() as patch:
        patch.setattr(book, "end", end_but_one)
        with pytest.raises(ZeroDivisionError):
            bulk.jobs.end_overdue()
    assert states() == ["expired", "expired", "in_progress"]
    assert bulk.jobs.end_overdue() == 1
    assert states() == ["expired"] * 3
    for order in orders:
        books.check(order)


def test_accounts_take_turns(books: Books) -> None:
    many, few = books.open(), books.open()
    bulk = process(books)
    for order, chunks in ((many, 4), (many, 1), (few, 2)):
        bulk.begin(order, *[(1, 0)] * chunks)
        books.clock.advance(0.001)
    claims = []
    while (claim := bulk.claim()) is not None:
        claims.append(claim.job.account_id)
        books.clock.advance(0.001)
    assert [each == few.account_id for each in claims] == [False, True, False, True, False, False, False]


@on_postgres
def test_a_locked_job_is_passed_over_and_taken_later(books: Books) -> None:
    stuck, free = books.open(), books.open()
    bulk = process(books)
    first = bulk.begin(stuck, (1, 0))
    books.clock.advance(0.001)
    second = bulk.begin(free, (1, 0))
    with locked(books.url, "SELECT 1 FROM batches WHERE id = %s FOR UPDATE", first.id):
        began = time.monotonic()
        claims = [bulk.claim(), bulk.claim()]
        assert time.monotonic() - began < 10
    assert [each and each.job.id for each in claims] == [second.id, None]
    claim = bulk.claim()
    assert claim is not None
    assert claim.job.id == first.id


@on_sqlite
def test_who_is_suspended_is_passed_over(books: Books) -> None:
    order, bulk = books.open(), process(books)
    bulk.begin(order, (1, 0))
    with books.locked(order) as (_, account):
        suspend(account)
    assert bulk.claim() is None


@pytest.mark.parametrize("ends", ["by its key", "by its time"])
def test_a_job_that_is_to_end_is_passed_over_before_it_is_ended(books: Books, ends: str) -> None:
    order, bulk = books.open(), process(books)
    bulk.begin(order, (1, 0))
    if ends == "by its key":
        with books.database.write() as session:
            revoke_key(session, order.key_id, books.clock)
    else:
        books.clock.advance(24 * 3600)
    assert bulk.claim() is None
    assert bulk.jobs.end_overdue() == 1
    books.check(order)


def with_secret(books: Books, order: Order) -> Order:
    """The same order by the present secret of its key."""
    return replace(order, secret_hash=books.key(order).secret_hash)


def act(books: Books, work: Callable[[Act], object]) -> None:
    with books.database.write() as session:
        work(Act(session, "os:test", books.clock))


def archive(books: Books, order: Order) -> None:
    act(books, lambda act: projects.archive(act, books.account(order).name, "search"))


def suspend_account(books: Books, order: Order) -> None:
    act(books, lambda act: accounts.suspend(act, books.account(order).name))


def rotate(books: Books, order: Order, grace: int = 0) -> None:
    act(books, lambda act: keys.rotate(act, order.key_id, grace))


# What ends what may ask, and how many seconds after that.
ENDS: dict[str, tuple[Callable[[Books, Order], None], int]] = {
    "revoked": (lambda books, order: act(books, lambda act: keys.revoke(act, order.key_id)), 0),
    "rotated": (rotate, 0),
    "its grace is over": (lambda books, order: rotate(books, order, 60), 60),
    "expired": (lambda _books, _order: None, 3600),
    "archived": (archive, 0),
    "suspended": (suspend_account, 0),
}


@on_sqlite
@pytest.mark.parametrize("how", ENDS)
def test_a_job_ends_with_what_may_ask_and_no_line_is_begun_after_that(books: Books, how: str) -> None:
    """Another job of the account, by a key that is good, goes on; a suspension ends all, at once."""
    other = with_secret(books, books.open())
    terms = KeyTerms(expires_at=books.clock() + 3600 * SECOND if how == "expired" else None)
    order, bulk = with_secret(books, books.open_project(other, key=terms)), process(books)
    begun = []
    for each in (order, other):
        begun.append((each, bulk.begin(each, (1, 0), (1, 0))))
        books.clock.advance(0.001)
    claim = bulk.claim()
    assert claim is not None
    bulk.settle(claim)
    end, seconds = ENDS[how]
    end(books, order)
    if seconds:
        books.clock.advance(seconds - 1)
        assert bulk.jobs.end_overdue() == 0
        books.clock.advance(1)
    left = [] if how == "suspended" else [other]
    with pytest.raises(APIError):
        books.admit(order)
    claims = [claim.job.key_id for _ in range(3) if (claim := bulk.claim()) is not None]
    assert claims == [each.key_id for each in left] * 2
    assert bulk.jobs.end_overdue() == len(left)
    states = [bulk.jobs.get(View.whole(each.account_id), job.id) for each, job in begun]
    assert [each.status for each in states] == ["cancelled", "in_progress" if left else "cancelled"]
    assert [each.cost_micros for each in states] == [50, 0]
    assert books.account(order).held_micros == (100 if left else 0)
    books.check(order, other)


@on_sqlite
def test_a_job_that_nobody_works_on_is_given_up_and_released(books: Books) -> None:
    order, bulk = books.open(), process(books)
    job = bulk.begin(order, (1, 0))
    claim = bulk.claim()
    assert claim is not None
    books.clock.advance(24 * 3600)
    assert bulk.jobs.end_overdue() == 1
    with pytest.raises(APIError):
        bulk.settle(claim)
    assert (bulk.jobs.get(View.whole(order.account_id), job.id).status, books.account(order).held_micros) == (
        "expired",
        0,
    )
    late = bulk.begin(order, (1, 0))
    books.clock.advance(26 * 3600)
    assert books.admission.sweep() == 1  # where no vendor runs jobs any more
    assert hold_of(books, late.id).state == "voided"
    assert bulk.jobs.end_overdue() == 1
    books.check(order)


@on_sqlite
def test_the_event_of_a_job_is_written_with_its_end(books: Books) -> None:
    order, bulk = books.open(), process(books)
    job = bulk.begin(order, (1, 0), (1, 0))
    for told in ([], ["completed"]):
        claim = bulk.claim()
        assert claim is not None
        bulk.settle(claim)
        with books.database.read() as session:
            events = session.scalars(select(WebhookEvent).where(WebhookEvent.kind == "batch.completed"))
            data = [json.loads(each.content)["data"] for each in events]
        assert [each["status"] for each in data if each["id"] == job.id] == told


def test_processes_that_race_charge_each_chunk_once_and_pass_no_limit(books: Books) -> None:
    """Beside jobs of the same account, requests that want what is left of its quota."""
    order = books.open(quota=60)
    other = Admission(books.database, books.clock, HOLD_SECONDS)
    with closing(other), ThreadPoolExecutor(8) as pool:
        both = [process(books), BulkProcess(books.database, books.clock, other)]

        def begin(number: int) -> int:
            try:
                both[number % 2].begin(order, *[(1, 1)] * 4)
            except APIError as error:
                assert error.code == "quota_exhausted"  # noqa: PT017 - most of them are begun
                return 0
            return 4

        def buy(number: int) -> int:
            try:
                admitted = books.admit_by(both[number % 2].admission, order)
            except APIError:
                return 0
            both[number % 2].admission.settle(order.account_id, admitted.request_id).result()
            return 1

        def work(number: int) -> int:
            done = 0
            while (claim := both[number % 2].claim()) is not None:
                both[number % 2].settle(claim)
                done += 1
            return done

        begun = pool.map(begin, range(6))
        bought = pool.map(buy, range(30))
        chunks, requests = sum(begun), sum(bought)
        assert sum(pool.map(work, range(4))) == chunks
    account = books.account(order)
    assert (account.queries_held, account.queries_used) == (0, 2 * chunks + requests)
    assert account.spent_micros == 60 * chunks + 100 * requests
    assert len(books.entries(order)) == chunks + requests
    books.check(order)


@pytest.mark.parametrize(
    "cut", [pytest.param("before the commit", marks=pytest.mark.slow), "before its answer"]
)
def test_a_commit_of_which_nobody_hears_counts_once(postgres: Postgres, cut: Cut) -> None:
    with CommitCutter(renewed(postgres)) as cutter, opened_books(cutter.url) as books:
        order, bulk = books.open(), process(books)
        file = bulk.send(order, (1, 0), (1, 0))
        cutter.cut_next(cut)
        job = bulk.begin_with(order, file)
        assert books.account(order).held_micros == 100
        claim = bulk.claim()
        assert claim is not None
        cutter.cut_next(cut)
        bulk.settle(claim)
        assert [entry.amount_micros for entry in books.entries(order)] == [-50]
        assert bulk.jobs.get(View.whole(order.account_id), job.id).request_counts.completed == 1
        books.check(order)
