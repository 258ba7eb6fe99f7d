"""Events: one for each crossing and each act, with it or not at all, whatever runs beside it or crashes."""

import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from tests.support.forking import Forked
from tests.support.vendor_process import wait_until
from tests.vendor_service.books import HOLD_SECONDS, Books, on_sqlite
from vendor_service.accounts.keys import KeyTerms
from vendor_service.accounts.projects import ProjectTerms
from vendor_service.acts import accounts, keys, money, projects, receivers
from vendor_service.acts.act import Act
from vendor_service.clock import DAY, system_clock
from vendor_service.database.session import Database
from vendor_service.database.tables import WebhookEvent
from vendor_service.errors import APIError
from vendor_service.money import payments
from vendor_service.money.admission import Admission
from vendor_service.money.orders import Order
from vendor_service.webhooks import model_notices
from vendor_service.webhooks.events import EventKind


def told(books: Books) -> list[tuple[str, dict[str, Any]]]:
    """The events, oldest first, with what they say."""
    with books.database.read() as session:
        rows = session.scalars(select(WebhookEvent)).all()
    return [(each.kind, json.loads(each.content)["data"]) for each in rows]


def reached(books: Books, kind: str) -> Counter[int]:
    """How often which threshold was told of."""
    return Counter(data["percent"] for name, data in told(books) if name == f"{kind}.threshold_reached")


def test_each_threshold_of_each_limit_is_told_when_it_is_reached(books: Books) -> None:
    order = books.open(quota=10, spend_limit_micros=800, credit_micros=1000)
    for used, quota, spent, credit in (
        (4, [], [50], []),
        (1, [50], [50], [50]),
        (3, [50, 80], [50, 80, 100], [50, 80]),
    ):
        books.buy(order, images=used)
        assert sorted(reached(books, "quota").elements()) == quota
        assert sorted(reached(books, "spend_limit").elements()) == spent
        assert sorted(reached(books, "credit").elements()) == credit
    said = {"account": books.account(order).name, "percent": 80, "used_queries": 8, "limit_queries": 10}
    assert ("quota.threshold_reached", said) in told(books)
    books.check(order)


@on_sqlite
def test_a_threshold_is_told_again_in_another_month_and_after_a_refund_or_another_limit(books: Books) -> None:
    order = books.open(quota=10, spend_limit_micros=1000)
    books.buy(order, images=5)
    with books.locked(order) as (session, account):
        payments.refund(session, account, 1, books.clock())
    books.buy(order, images=2)  # of the quota nothing came back
    assert (reached(books, "quota")[50], reached(books, "spend_limit")[50]) == (1, 1)
    books.buy(order, images=3)
    assert (reached(books, "quota")[100], reached(books, "spend_limit")[50]) == (1, 2)
    books.clock.now += 31 * DAY
    books.buy(order, images=5)
    assert reached(books, "quota")[50] == 2
    with books.database.write() as session:
        accounts.change(Act(session, "os:test", books.clock), books.account(order).name, {"quota": 6})
    assert reached(books, "quota") == {50: 2, 80: 2, 100: 1}


@on_sqlite
def test_credit_counts_from_the_last_top_up_and_corrections_use_it_too(books: Books) -> None:
    order = books.open(credit_micros=100)
    name = books.account(order).name
    with books.database.write() as session:
        act = Act(session, "os:test", books.clock)
        money.top_up(act, name, 900, "bank 1")
    books.buy(order, images=4)
    assert reached(books, "credit") == {}
    with books.database.write() as session:
        money.adjust(
            Act(session, "os:test", books.clock, percents=(50, 90)), name, -500, "a mistake", "ticket"
        )
    assert reached(books, "credit") == {50: 1, 90: 1}


@on_sqlite
def test_a_month_that_is_closed_and_a_key_that_is_rotated_are_told_once(books: Books) -> None:
    order = books.open()
    books.buy(order)
    for _ in range(2):
        books.invoice(order)
    books.clock.now += 40 * DAY
    for _ in range(2):
        books.invoice(order)
    with books.database.write() as session:
        act = Act(session, "os:test", books.clock)
        keys.rotate(act, order.key_id, 60)
    with suppress(ZeroDivisionError), books.database.write() as session:
        keys.rotate(Act(session, "os:test", books.clock), order.key_id, 60)
        raise ZeroDivisionError
    assert [kind for kind, _ in told(books)] == ["invoice.finalized", "key.rotated"] or [
        kind for kind, _ in told(books)
    ] == ["key.rotated", "invoice.finalized"]
    said = dict(told(books))
    assert said["invoice.finalized"]["total_micros"] == 100
    assert said["key.rotated"]["key_id"] == order.key_id


def test_whoever_buys_at_once_reaches_a_threshold_once(books: Books) -> None:
    order = books.open(quota=40)
    with closing(Admission(books.database, books.clock, HOLD_SECONDS)) as other:
        processes = (books.admission, other)

        def buy(number: int) -> None:
            process = processes[number % 2]
            admitted = books.admit_by(process, order)
            process.settle(order.account_id, admitted.request_id).result()

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(buy, range(40)))
    assert reached(books, "quota") == {50: 1, 80: 1, 100: 1}
    books.check(order)


@on_sqlite
def test_thresholds_of_projects_and_keys_are_told_as_those_of_accounts_are(books: Books) -> None:
    order = books.open()
    search = books.open_project(order, ProjectTerms(quota=4), KeyTerms(spend_limit_micros=200))
    books.buy(search, images=2)
    name = books.account(order).name
    said = {"account": name, "project": "search", "percent": 50, "used_queries": 2, "limit_queries": 4}
    spent = [data for kind, data in told(books) if kind == "spend_limit.threshold_reached"]
    assert [data for kind, data in told(books) if kind == "quota.threshold_reached"] == [said]
    assert {each["key_id"] for each in spent} == {search.key_id}
    assert sorted(each["percent"] for each in spent) == [50, 80, 100]
    with books.database.write() as session:
        projects.change(Act(session, "os:test", books.clock), name, "search", {"quota": 2})
    assert reached(books, "quota") == {50: 1, 80: 1, 100: 1}


def test_each_change_of_a_models_dates_is_told_once_whoever_serves_it(books: Books) -> None:
    first, second = (datetime(2026, month, 1, tzinfo=UTC) for month in (12, 11))

    def tell(deprecated_at: datetime | None, *, crash: bool = False) -> None:
        with suppress(ZeroDivisionError), books.database.write() as session:
            model_notices.tell(session, "icon-clip", deprecated_at, None, books.clock())
            if crash:
                raise ZeroDivisionError

    tell(None)
    tell(first, crash=True)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(tell, [first] * 8))
    assert told(books) == [
        (
            "model.deprecated",
            {"model": "icon-clip", "deprecated_at": "2026-12-01T00:00:00+00:00", "sunset_at": None},
        )
    ]
    tell(second)
    tell(second)
    assert len(told(books)) == 2


@on_sqlite
def test_what_concerns_all_accounts_is_told_to_the_receivers_of_each_that_want_it(books: Books) -> None:
    name = books.account(books.open()).name
    with books.database.write() as session:
        act = Act(session, "os:test", books.clock)
        made = {
            (whose, kinds): receivers.create(act, "https://example.com/", kinds, whose).endpoint_id
            for whose in (None, name)
            for kinds in ((), (EventKind.MODEL_DEPRECATED,), (EventKind.QUOTA,))
        }
    at = datetime(2026, 12, 1, tzinfo=UTC)
    with books.database.write() as session:
        model_notices.tell(session, "icon-clip", at, None, books.clock())
    with books.database.read() as session:
        sent = {each.endpoint_id for each in receivers.deliveries(Act(session, "os:test", books.clock))}
    assert sent == {each for (_, kinds), each in made.items() if EventKind.QUOTA not in kinds}


def _buy_all(url: str, order: Order) -> None:
    """Buy a text at a time until the quota is used, in a process that may be killed."""
    database = Database(url)
    admission = Admission(database, system_clock, HOLD_SECONDS)
    number = time.monotonic_ns()
    with suppress(APIError):
        while True:
            number += 1
            bought = replace(order, request_id=f"req_{number}", counts={"text": 1})
            admission.admit(bought).result()
            admission.settle(order.account_id, bought.request_id).result()


def test_a_vendor_that_is_killed_again_and_again_tells_each_threshold_once(books: Books) -> None:
    books.clock.now = system_clock()
    order = books.open(KeyTerms(), quota=40)
    url = books.url
    generator = random.Random(7)
    while (used := books.account(order).queries_used) < 40:
        process, until = Forked(_buy_all, url, order), min(40, used + generator.randint(12, 22))
        wait_until(lambda until=until: books.account(order).queries_used >= until, seconds=60)  # type: ignore[misc]
        process.kill()
        process.wait()
        books.admission.void_abandoned()
    assert reached(books, "quota") == {50: 1, 80: 1, 100: 1}
    books.check(order)


@pytest.mark.parametrize("percents", [(), (100,)])
@on_sqlite
def test_of_other_thresholds_nothing_is_told(books: Books, percents: tuple[int, ...]) -> None:
    with closing(Admission(books.database, books.clock, HOLD_SECONDS, percents=percents)) as process:
        order = books.open(quota=4)
        for _ in range(4):
            admitted = books.admit_by(process, order)
            process.settle(order.account_id, admitted.request_id).result()
    assert reached(books, "quota") == dict.fromkeys(percents, 1)
