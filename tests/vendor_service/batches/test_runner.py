"""The runner on the books of both databases: what it takes while a model or the store is away."""

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from shared.errors import ErrorCode
from tests.vendor_service.batches.bulk_books import SERVED, BulkProcess
from tests.vendor_service.books import Books
from vendor_service.batches import runner
from vendor_service.batches.leases import Claim
from vendor_service.batches.runner import Pauses, Runner
from vendor_service.database.view import View
from vendor_service.errors import APIError
from vendor_service.money import prices
from vendor_service.money.rate import UNPAID_BURST, UNPAID_PER_SECOND, Allowance


def begin(books: Books, model: str, chunks: int) -> tuple[View, str]:
    """Begin a job for a model in an account of its own; the account, and the job."""
    order, bulk = books.open(), BulkProcess(books.database, books.clock, books.admission)
    with books.database.write() as session:
        prices.publish(session, model, {"image": 100, "text": 20}, books.clock())
    bulk.model = replace(bulk.model, id=model)
    return View.whole(order.account_id), bulk.begin(order, *[(1, 0)] * chunks).id


@pytest.mark.parametrize("books", ["sqlite"], indirect=True)
def test_a_job_whose_model_or_file_is_away_is_left_alone_for_a_while_and_no_other_job(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, dead = begin(books, "icon-clip", 40)
    healthy = [begin(books, model, 8) for model in ("icon-clip", "another")]
    bulk = BulkProcess(books.database, books.clock, books.admission)
    taken: Counter[str] = Counter()

    async def do(_: Runner, claim: Claim) -> None:
        taken[claim.job.id] += 1
        if claim.job.id == dead:
            raise APIError(ErrorCode.OVERLOADED, "the vendor's store of files is full or away; try again")
        await asyncio.to_thread(bulk.settle, claim)

    async def work() -> None:
        works = asyncio.create_task(tested.repeat())
        async with asyncio.timeout(60):
            while any(bulk.jobs.get(*each).status != "completed" for each in healthy):
                await asyncio.sleep(0.01)
        works.cancel()

    monkeypatch.setattr(runner, "monotonic", lambda: 0.0)
    monkeypatch.setattr(Runner, "_do", do)
    encoder = SimpleNamespace(waiting=lambda _: 0)
    models: Any = [
        SimpleNamespace(facts=replace(bulk.model, id=each), encoder=encoder)
        for each in ("icon-clip", "another")
    ]
    unused: Any = None
    tested = Runner(
        models, bulk.leases, bulk.files.store, books.admission, Allowance(books.clock), unused, None, unused,
        unused,
    )  # fmt: skip
    asyncio.run(work())
    assert [taken[batch_id] for _, batch_id in healthy] == [8, 8]
    assert 1 <= taken[dead] <= 3  # as many as are worked on at once


@pytest.mark.parametrize("books", ["sqlite"], indirect=True)
def test_jobs_of_an_account_wait_while_half_of_its_allowance_is_gone(books: Books) -> None:
    spent, other = (begin(books, "icon-clip", 8)[0].account_id for _ in range(2))
    bulk = BulkProcess(books.database, books.clock, books.admission)
    allowance = Allowance(books.clock)

    def takers() -> set[str]:
        without = allowance.half_gone()
        claims = [bulk.leases.claim(SERVED, (), without) for _ in range(2)]
        return {each.job.account_id for each in claims if each is not None}

    assert takers() == {spent, other}
    allowance.take(View(spent, ""), UNPAID_BURST // 2)
    assert takers() == {spent, other}
    allowance.take(View(spent, ""), 1)
    assert takers() == {other}
    books.clock.advance(1)
    assert takers() == {spent, other}


@pytest.mark.parametrize("books", ["sqlite"], indirect=True)
def test_no_request_is_refused_for_what_jobs_took_and_jobs_get_what_requests_leave(books: Books) -> None:
    allowance, mine = Allowance(books.clock), View("mine", "")
    allowance.take_for_job(mine, 2 * UNPAID_BURST)
    assert allowance.half_gone() == [mine]
    allowance.take(mine, UNPAID_BURST - 1)
    allowance.check(mine)
    allowance.take(mine, 1)
    with pytest.raises(APIError, match="try again in 1 s"):
        allowance.check(mine)

    allowance = Allowance(books.clock)
    jobs = requests = 0
    for _ in range(600):
        while mine not in allowance.half_gone():
            allowance.take_for_job(mine, 1)
            jobs += 1
        with suppress(APIError):
            while True:
                allowance.check(mine)
                allowance.take(mine, 1)
                requests += 1
        books.clock.advance(1)
    assert requests == UNPAID_BURST + 599 * UNPAID_PER_SECOND
    assert jobs == UNPAID_BURST // 2 + 1


def test_pauses_grow_to_a_minute_and_end_with_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(runner, "monotonic", lambda: now)
    pauses = Pauses()
    for seconds in (2, 4, 8, 16, 32, 60, 60):
        for _ in range(3):  # together
            pauses.begin("dead")
        now += seconds - 1
        assert pauses.now() == ["dead"]
        now += 1
        assert pauses.now() == []
    for done in (pauses.end, lambda _: None):
        pauses.begin("dead")
        assert pauses.now() == ["dead"]
        done("dead")
    now += 2
    assert pauses.now() == []
    now += 61
    pauses.begin("another")
    pauses.begin("dead")  # it begins anew: nobody has asked for so long
    now += 2
    assert pauses.now() == []
