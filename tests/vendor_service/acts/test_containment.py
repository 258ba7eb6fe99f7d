"""A key that somebody else may have is contained: what it does ends, and what it did is told, exactly."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.support.commit_cutter import CommitCutter
from tests.support.postgres import Postgres
from tests.vendor_service.batches.bulk_books import BulkProcess
from tests.vendor_service.books import Books, opened_books, renewed
from vendor_service.accounts.keys import KeyTerms, Scope, secret_hash
from vendor_service.acts import keys, receivers
from vendor_service.acts.act import Act, ActContext, Customer
from vendor_service.acts.containment import Contained, contain
from vendor_service.audit.actors import customer_key
from vendor_service.clock import SECOND
from vendor_service.console import sessions
from vendor_service.console.seal import Seal
from vendor_service.console.sessions import CUSTOMERS
from vendor_service.database.tables import AuditEntry, ConsoleSession
from vendor_service.database.view import View
from vendor_service.errors import APIError, CommitInDoubt
from vendor_service.money.orders import Order

ADMIN = KeyTerms("of the customer", scopes=frozenset({Scope.ADMIN}))


def process(books: Books) -> BulkProcess:
    return BulkProcess(books.database, books.clock, books.admission)


def with_secret(books: Books, order: Order) -> Order:
    return replace(order, secret_hash=books.key(order).secret_hash)


def contained(books: Books, order: Order, *, revoke: bool = False, since: int | None = None) -> Contained:
    with ActContext(books.database, books.clock, actor="os:test").write() as act:
        return contain(act, order.key_id, revoke, since)


def makes_a_key(books: Books, order: Order, label: str) -> Order:
    """Have the key of an order make another one; an order by that."""
    name = books.account(order).name
    customer = Customer(books.account(order), books.key(order))
    with books.database.write() as session:
        act = Act(session, customer_key(order.key_id), books.clock, customer=customer)
        made = keys.issue(act, name, replace(ADMIN, label=label))
        receivers.create(act, f"https://example.com/{label}")
    return replace(order, key_id=made.key_id, secret_hash=secret_hash(made.api_key))


def containments(books: Books, order: Order) -> int:
    """How many are in the audit log of an account."""
    mine = (AuditEntry.action == "key.contain", AuditEntry.subject == books.account(order).name)
    with books.database.read() as session:
        return session.query(AuditEntry).where(*mine).count()


def signs_in(books: Books, order: Order) -> None:
    with books.database.write() as session:
        by = {"account_id": order.account_id, "key_id": order.key_id}
        sessions.begin(session, Seal(b""), CUSTOMERS, books.clock(), secret_hash=str(order.secret_hash), **by)


@pytest.mark.parametrize("revoke", [False, True])
def test_what_a_contained_key_does_ends_and_what_it_did_since_a_date_is_told(
    books: Books, revoke: bool
) -> None:
    order, bulk = with_secret(books, books.open(ADMIN)), process(books)
    other = with_secret(books, books.another_key(order, ADMIN))
    makes_a_key(books, order, "before")
    books.buy(order, images=2)
    books.clock.advance(3600)
    since = books.clock()
    thief = makes_a_key(books, makes_a_key(books, order, "made"), "made-by-made")
    books.buy(order, images=3)
    books.buy(other)
    jobs = []
    for each in (order, other):
        jobs.append(bulk.begin(each, (1, 0), (1, 0)))
        signs_in(books, each)
        books.clock.advance(1)
    claims = [bulk.claim(), bulk.claim()]
    assert claims[0] is not None
    assert claims[1] is not None
    bulk.settle(claims[0])

    told = contained(books, order, revoke=revoke, since=since)
    states = [bulk.jobs.get(View.whole(order.account_id), job.id) for job in jobs]
    assert (told.jobs_stopped, told.sessions_ended) == ([jobs[0].id], 1)
    assert [(each.status, each.cost_micros) for each in states] == [("cancelled", 50), ("in_progress", 0)]
    assert states[0].output_file_id is not None
    assert (told.queries, told.cost_micros) == (3 + 1, 350)
    found = [(each.kind, each.label, each.state, each.by == order.key_id) for each in told.made]
    assert sorted(found) == [
        ("job", "icon-clip", "cancelled", True),
        ("key", "made", "in use", True),
        ("key", "made-by-made", "in use", False),
        ("receiver", "https://example.com/made", "in use", True),
        ("receiver", "https://example.com/made-by-made", "in use", False),
    ]
    with pytest.raises(APIError, match="the job has ended"):
        bulk.settle(claims[1])
    with pytest.raises(APIError) as refused:
        books.buy(order)
    assert refused.value.code == ("key_revoked" if revoke else "invalid_api_key")
    assert (told.api_key is None) == revoke
    if told.api_key is not None:
        order = replace(order, secret_hash=secret_hash(told.api_key))
        books.buy(order)
    with books.database.read() as session:
        assert [each.key_id for each in session.query(ConsoleSession)] == [other.key_id]
    while (claim := bulk.claim()) is not None:
        bulk.settle(claim)
    assert bulk.jobs.get(View.whole(other.account_id), jobs[1].id).cost_micros == 100
    again = contained(books, order, revoke=True)
    assert (again.jobs_stopped, again.api_key, again.queries >= 6) == ([], None, True)
    recorded = containments(books, order)
    contained(books, order, revoke=True)  # which changes nothing, so nobody can fill the log with it
    assert containments(books, order) == recorded == (1 if revoke else 2)
    assert contained(books, thief).made == []
    assert books.check(order, other, thief).held_micros == 0


def test_lines_that_are_charged_beside_it_count_once_or_not_at_all(books: Books) -> None:
    """Whatever was charged before the key was contained stays, and nothing is charged or held after it."""
    order, bulk = with_secret(books, books.open()), process(books)
    job = bulk.begin(order, *[(1, 1)] * 40)

    def work(_: int) -> int:
        charged = 0
        while (claim := bulk.claim()) is not None:
            try:
                charged += bulk.settle(claim) is not None
            except APIError as error:
                assert error.code == "deadline_exceeded"  # noqa: PT017 - others are charged
        return charged

    with ThreadPoolExecutor(5) as pool:
        working = pool.map(work, range(4))
        while not books.entries(order):
            pass
        told = contained(books, order)
        charged = sum(working)
    ended = bulk.jobs.get(View.whole(order.account_id), job.id)
    assert (told.jobs_stopped, ended.status) == ([job.id], "cancelled")
    assert ended.cost_micros == told.cost_micros == 60 * charged
    assert told.queries == 2 * charged == 2 * len(books.entries(order))
    assert ended.request_counts.completed == charged
    assert books.check(order).held_micros == 0


@pytest.mark.parametrize("cut", ["before the commit", "before its answer"])
def test_a_commit_of_which_nobody_hears_loses_no_money_and_can_be_repeated(
    postgres: Postgres, cut: str
) -> None:
    with CommitCutter(renewed(postgres)) as cutter, opened_books(cutter.url) as books:
        order, bulk = with_secret(books, books.open()), process(books)
        job = bulk.begin(order, (1, 0), (1, 0))
        claim = bulk.claim()
        assert claim is not None
        bulk.settle(claim)
        cutter.cut_next(cut)  # type: ignore[arg-type]
        with pytest.raises(CommitInDoubt):
            contained(books, order)
        books.check(order)
        told = contained(books, order)
        assert told.jobs_stopped == ([job.id] if cut == "before the commit" else [])
        ended = bulk.jobs.get(View.whole(order.account_id), job.id)
        assert (ended.status, ended.cost_micros, ended.held_micros) == ("cancelled", 50, 0)
        assert books.check(order).held_micros == 0


def test_a_key_with_limits_of_its_own_takes_no_other_keys_secret(books: Books) -> None:
    order = books.open()
    limited = books.another_key(order, KeyTerms(quota=5, scopes=frozenset({Scope.ADMIN})))
    with books.database.write() as session:
        customer = Customer(books.account(order), books.key(limited))
        act = Act(session, customer_key(limited.key_id), books.clock, customer=customer)
        with pytest.raises(APIError) as refused:
            contain(act, order.key_id)
        assert refused.value.code == "insufficient_scope"
        assert contain(act, limited.key_id).api_key is not None
        assert contain(act, limited.key_id, since=books.clock() + 60 * SECOND).made == []


@pytest.mark.parametrize("by_session", [False, True])
def test_what_a_key_or_a_session_asked_before_its_end_is_not_done_after_it(
    books: Books, by_session: bool
) -> None:
    order = with_secret(books, books.open(ADMIN))
    account, key = books.account(order), books.key(order)
    if by_session:
        signs_in(books, order)
        with books.database.read() as session:
            begun = session.query(ConsoleSession).filter_by(account_id=order.account_id).one().id
        customer = Customer(account, None, session_id=begun)
    else:
        customer = Customer(account, key, key.secret_hash)
    waits = ActContext(books.database, books.clock).by(customer_key(order.key_id), customer=customer)
    with waits.write() as act:  # as long as it is good
        keys.issue(act, account.name, ADMIN)
    contained(books, order)
    for rotates in (False, True):
        with pytest.raises(APIError) as refused, waits.write() as act:
            keys.rotate(act, key.id) if rotates else keys.issue(act, account.name, ADMIN)
        assert refused.value.code == "invalid_api_key"
    with books.database.read() as session:
        assert keys.page(session, View.whole(account.id), None, 9)[0][2:] == []
