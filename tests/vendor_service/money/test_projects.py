"""Projects and keys have limits of their own inside the account's, which no race exceeds."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from shared.billing import EstimateRequest
from tests.vendor_service.books import HOLD_SECONDS, Books, asking, on_sqlite
from tests.vendor_service.money.test_admission import refusal
from vendor_service.accounts import projects
from vendor_service.accounts.keys import KeyTerms, issue_key
from vendor_service.accounts.projects import ProjectTerms
from vendor_service.acts import keys as acts
from vendor_service.acts.act import Act
from vendor_service.clock import SECOND, next_month_start
from vendor_service.database.session import Database
from vendor_service.database.tables import Project, WebhookEvent, limited_by
from vendor_service.database.view import View
from vendor_service.errors import APIError, OperatorError, UsageError
from vendor_service.money import payments, prices
from vendor_service.money.admission import Admission
from vendor_service.money.checkout import Precheck
from vendor_service.money.estimates import estimate
from vendor_service.money.usage import usage_report


def project_of(books: Books, by: Any) -> Project:
    project = books.key(by).project
    assert project is not None
    return project


@pytest.mark.parametrize(
    ("terms", "code", "message"),
    [
        (ProjectTerms(quota=3), "quota_exhausted", "the project search has 1 left of its quota of 3"),
        (ProjectTerms(spend_limit_micros=399), "spend_limit_reached", "the project search has 199 left"),
        (ProjectTerms(queries_per_second=1), "rate_limited", "the project search may ask 1 queries"),
    ],
)
@on_sqlite
def test_a_project_has_limits_of_its_own_inside_the_accounts(
    books: Books, terms: ProjectTerms, code: str, message: str
) -> None:
    order = books.open(quota=20)
    one = books.open_project(order, terms)
    another = books.another_key(order, KeyTerms(project="search"))
    books.buy(one, images=2)
    count = 9 if code == "rate_limited" else 2
    with pytest.raises(APIError, match=message) as refused:
        books.admit(another, images=count)
    assert refused.value.code == code
    precheck = Precheck(books.clock)
    precheck.learn("standard", "icon-clip", {"image": 100, "text": 20})
    asked = asking(another, images=count)
    assert not precheck.passes(asked, books.account(order), books.key(another))
    books.buy(order, images=count)  # of the default project
    for each in (order, one, another):
        books.check(each)


def test_what_a_project_buys_names_it_and_is_counted_for_it(books: Books) -> None:
    with books.database.write() as session:
        prices.publish(session, "other", {"image": 100, "text": 20}, books.clock())
    order = books.open(quota=50)
    search = books.open_project(order, ProjectTerms(quota=30))
    books.buy(order, texts=1, model="other", images=0)
    books.buy(search, images=3)
    held = books.admit(search, images=2)
    project = project_of(books, search)
    assert (project.queries_used, project.spent_micros, project.queries_held) == (3, 300, 2)
    with books.database.read() as session:
        status = projects.public(project, books.account(order), books.clock())
        by_project, by_model = (
            {
                row.group: row.cost_micros
                for row in usage_report(session, View.whole(order.account_id), by, 0, 2**60).rows
            }
            for by in ("project", "model")
        )
        quote = estimate(
            session, order.account_id, search.key_id, "icon-clip", EstimateRequest(images=26), books.clock()
        )
    assert (status.queries_used, status.queries_held, status.project) == (3, 2, "search")
    assert by_project == {"default": 20, "search": 300}
    assert by_model == {"icon-clip": 300, "other": 20}
    assert (quote.quota_left, quote.fits_quota) == (25, False)
    books.admission.void(order.account_id, held.request_id).result()
    assert [entry.project_id for entry in books.entries(order)] == [None, project.id]
    books.check(search)
    books.clock.now = next_month_start(books.clock.now) + SECOND
    books.buy(search, images=30)
    assert refusal(books, search) == "quota_exhausted"
    books.check(search)


@on_sqlite
def test_a_refund_frees_the_projects_spend_limit_and_a_repair_counts_anew(books: Books) -> None:
    order = books.open()
    search = books.open_project(order, ProjectTerms(spend_limit_micros=300))
    books.buy(search, images=3)
    with books.locked(order) as (session, account):
        payments.refund(session, account, 1, books.clock())
    assert project_of(books, search).spent_micros == 0
    books.buy(search, images=2)
    books.check(search)
    books.misdate(search, books.clock.now + 400 * 86_400 * SECOND)
    books.repair(order)
    project = project_of(books, search)
    assert (project.queries_used, project.spent_micros) == (6, 300)
    books.check(search)


@on_sqlite
def test_the_keys_of_an_archived_project_are_refused(books: Books) -> None:
    order = books.open()
    search = books.open_project(order)
    held = books.admit(search)
    with books.locked(order) as (session, account):
        projects.archive(projects.find_project(session, account, "search"), books.clock())
    assert refusal(books, search) == "project_archived"
    books.admission.settle(order.account_id, held.request_id).result()
    books.buy(order)
    with books.locked(order) as (session, account), pytest.raises(OperatorError, match="archived"):
        issue_key(session, account, KeyTerms(project="search"), books.clock)
    books.check(search)


@pytest.mark.parametrize("name", ["default", "search", "Search", ""])
@on_sqlite
def test_a_project_has_a_name_that_no_other_has(books: Books, name: str) -> None:
    order = books.open()
    books.open_project(order)
    with books.locked(order) as (session, account), pytest.raises(OperatorError, match=r"already|cannot be"):
        projects.create_project(session, account, name, ProjectTerms(), books.clock)
    books.open_project(books.open(), name="search")  # of another account


@on_sqlite
def test_a_key_ends_when_it_was_said_to(books: Books) -> None:
    order = books.open(KeyTerms(expires_at=books.clock() + 60 * SECOND))
    books.buy(order, idempotency_key="k")
    books.clock.advance(60)
    assert refusal(books, order) == "key_expired"
    assert refusal(books, order, idempotency_key="k") == "key_expired"
    with pytest.raises(UsageError, match="future"):
        books.another_key(order, KeyTerms(expires_at=books.clock()))
    for wrong in (KeyTerms(concurrency=0), KeyTerms(queries_per_second=0)):
        with pytest.raises(UsageError, match="must be between"):
            books.another_key(order, wrong)


@on_sqlite
def test_another_limit_of_a_key_holds_from_then_on_and_what_was_used_counts(books: Books) -> None:
    order = books.open(KeyTerms(quota=2))

    def limit(**limits: int | None) -> None:
        with books.database.write() as session:
            acts.set_limits(Act(session, "os:test", books.clock), order.key_id, limits)

    books.buy(order, images=2)
    assert refusal(books, order) == "quota_exhausted"
    limit(quota=4)
    books.buy(order)
    limit(quota=1, expires_at=books.clock() + 5 * SECOND)
    assert refusal(books, order) == "quota_exhausted"
    limit(quota=None)
    books.buy(order)
    assert books.key(order).queries_used == 4
    books.clock.advance(6)
    assert refusal(books, order) == "key_expired"
    limit(expires_at=None)
    books.buy(order)
    with pytest.raises(UsageError, match="concurrency"):
        limit(quota=9, concurrency=0)
    assert books.key(order).quota is None
    with books.database.read() as session:
        told = session.scalars(select(WebhookEvent)).all()
    of_key = [json.loads(each.content)["data"] for each in told]
    reached = {(each["percent"], each["limit_queries"]) for each in of_key if "key_id" in each}
    assert reached == {(50, 2), (80, 2), (100, 2), (80, 1), (100, 1)}
    books.check(order)


@on_sqlite
def test_a_key_has_a_rate_of_its_own(books: Books) -> None:
    order = books.open(KeyTerms(queries_per_second=1), queries_per_second=100)
    admitted = books.buy(order, images=8)
    assert admitted.rate is not None
    assert (admitted.rate.limit, admitted.rate.remaining) == (10, 2)
    assert refusal(books, order, images=3) == "rate_limited"
    books.admission.take_tokens(order.account_id, order.key_id, 2).result()
    assert refusal(books, order) == "rate_limited"
    books.clock.advance(1)
    books.buy(order)
    books.buy(books.another_key(order), images=50)


@pytest.mark.parametrize("limit", ["key", "project"])
def test_a_race_exceeds_no_limit_of_a_project_or_a_key(books: Books, limit: str) -> None:
    """Through two databases on one file, as two processes would have, by two keys of one project."""
    order = books.open(quota=30)
    terms = ProjectTerms(quota=11) if limit == "project" else ProjectTerms()
    one = books.open_project(order, terms, KeyTerms(concurrency=2) if limit == "key" else KeyTerms())
    other = books.another_key(order, KeyTerms(project="search", concurrency=2 if limit == "key" else None))

    def attempt(number: int) -> str:
        admission = (books.admission, twin)[number % 2]
        by = (one, other)[number // 2 % 2]
        try:
            admission.admit(replace(by, request_id=f"race_{number}")).result()
        except APIError as refused:
            return refused.code
        key = books.key(by)
        assert key.concurrency is None or 1 <= key.requests_held <= key.concurrency
        admission.settle(order.account_id, f"race_{number}").result()
        return "served"

    with (
        closing(Database(books.database.engine.url.render_as_string())) as second,
        closing(Admission(second, books.clock, HOLD_SECONDS)) as twin,
        ThreadPoolExecutor(8) as pool,
    ):
        outcomes = sorted(pool.map(attempt, range(24)))
    if limit == "project":
        assert outcomes == ["quota_exhausted"] * 13 + ["served"] * 11
    else:
        assert set(outcomes) <= {"served", "rate_limited"}
        assert books.key(one).requests_held == books.key(other).requests_held == 0
    for each in (one, other):
        books.check(each)
        assert all(limited.queries_held == 0 for limited in limited_by(books.account(order), books.key(each)))
