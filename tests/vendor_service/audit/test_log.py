"""The audit log: one chain that nobody can rewrite unseen, and an entry for each act and for no other."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from tests.vendor_service.books import Books, on_sqlite
from vendor_service.accounts.accounts import Terms
from vendor_service.accounts.keys import KeyTerms
from vendor_service.accounts.projects import ProjectTerms
from vendor_service.acts import accounts, keys, operators, projects, receipts_keys, receivers
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.audit import log
from vendor_service.audit.log import AuditRecord, AuditVerification
from vendor_service.database.tables import SigningKeyRow
from vendor_service.errors import UsageError


def open_and_limit(books: Books, name: str = "acme") -> None:
    """Two acts, in a transaction each."""
    with books.database.write() as session:
        accounts.open_account(Act(session, "os:anna", books.clock), name, Terms(quota=5))
    with books.database.write() as session:
        accounts.change(Act(session, "os:ben", books.clock), name, {"quota": 8})


def entries(books: Books, **chosen: int | str) -> list[AuditRecord]:
    with books.database.read() as session:
        return log.entries(session, **chosen)  # type: ignore[arg-type]


def verified(books: Books) -> AuditVerification:
    with books.database.read() as session:
        return log.verify(session)


def test_an_act_is_recorded_with_it_or_not_at_all(books: Books) -> None:
    open_and_limit(books)
    with pytest.raises(UsageError), books.database.write() as session:
        accounts.change(Act(session, "os:ben", books.clock), "acme", {"quota": -1})
    with suppress(ZeroDivisionError), books.database.write() as session:
        accounts.suspend(Act(session, "os:ben", books.clock), "acme")
        raise ZeroDivisionError
    opened, limited = entries(books)
    assert (opened.actor, opened.action, opened.subject, opened.before) == (
        *("os:anna", "account.create", "acme"),
        None,
    )
    assert opened.after is not None
    assert (opened.after["quota"], opened.after["status"]) == (5, "active")
    assert (limited.actor, limited.action) == ("os:ben", "account.set")
    assert (limited.before, limited.after) == ({"quota": 5}, {"quota": 8})
    assert verified(books) == AuditVerification(2, limited.entry_hash, None)


@on_sqlite
def test_an_act_that_was_done_before_is_not_recorded(books: Books) -> None:
    with books.database.write() as session:
        act = Act(session, "os:anna", books.clock)
        accounts.open_account(act, "acme", Terms())
        key_id = keys.issue(act, "acme", KeyTerms()).key_id
        projects.create(act, "acme", "search", ProjectTerms())
        token_id = operators.issue(act, "deploy", [OperatorScope.READ]).token_id
        endpoint_id = receivers.create(act, "https://example.com/").endpoint_id
        session.add(SigningKeyRow(kid="kid", x="x", created_at=books.clock()))
    acts: dict[str, Callable[[Act], object]] = {
        "account.set": lambda act: accounts.change(act, "acme", {"quota": 5}),
        "account.suspend": lambda act: accounts.suspend(act, "acme"),
        "key.set": lambda act: keys.set_limits(act, key_id, {"quota": 5}),
        "key.revoke": lambda act: keys.revoke(act, key_id),
        "project.set": lambda act: projects.change(act, "acme", "search", {"quota": 5}),
        "project.archive": lambda act: projects.archive(act, "acme", "search"),
        "operator.revoke": lambda act: operators.revoke(act, token_id),
        "webhook.disable": lambda act: receivers.disable(act, endpoint_id),
        "receipts_key.withdraw": lambda act: receipts_keys.withdraw(act, "kid"),
    }
    begun = verified(books).entries
    for do in acts.values():
        for _ in range(2):
            with books.database.write() as session:
                do(Act(session, "os:anna", books.clock))
            books.clock.advance(1)
    assert [each.action for each in entries(books, after=begun)] == list(acts)


@on_sqlite
def test_entries_are_listed_in_pages_and_by_subject(books: Books) -> None:
    for name in ("acme", "beta"):
        open_and_limit(books, name)
    assert [each.seq for each in entries(books, limit=3)] == [2, 3, 4]
    assert [each.seq for each in entries(books, after=1, limit=2)] == [2, 3]
    assert [each.seq for each in entries(books, subject="beta")] == [3, 4]
    assert [each.seq for each in entries(books, before=4, limit=2)] == [2, 3]
    assert [each.seq for each in entries(books, before=4, subject="beta")] == [3]
    assert entries(books, after=4) == []


def test_the_log_refuses_every_change(books: Books) -> None:
    open_and_limit(books)
    changes = ["UPDATE audit_entries SET actor = 'os:nobody'", "DELETE FROM audit_entries WHERE seq = 2"]
    if books.database.embedded:
        changes.append(
            "INSERT OR REPLACE INTO audit_entries SELECT seq, created_at, 'os:nobody', action, subject, "
            "before, after, previous_hash, entry_hash FROM audit_entries WHERE seq = 1"
        )
    for change in changes:
        with pytest.raises(DatabaseError, match="append-only"), books.database.write() as session:
            session.execute(text(change))
    assert (verified(books).entries, verified(books).problem) == (2, None)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("UPDATE audit_entries SET actor = 'os:nobody' WHERE seq = 1", "entry 1 was changed"),
        ("UPDATE audit_entries SET before = NULL WHERE seq = 2", "entry 2 was changed"),
        ("DELETE FROM audit_entries WHERE seq = 1", "entry 1 is missing"),
        ("DELETE FROM audit_entries WHERE seq = 2", "entry 1 is not the last one: 2 were written"),
        ("UPDATE audit_entries SET previous_hash = entry_hash WHERE seq = 2", "does not follow"),
    ],
)
@on_sqlite
def test_a_log_that_was_tampered_with_is_found_out(books: Books, change: str, fault: str) -> None:
    open_and_limit(books)
    books.tamper(change)
    assert fault in (verified(books).problem or "")


def test_acts_at_the_same_moment_make_one_chain(books: Books) -> None:
    for name in ("acme", "beta"):
        open_and_limit(books, name)

    def act(number: int) -> None:
        with books.database.write() as session:
            by = Act(session, f"os:{number}", books.clock)
            if number % 3:
                accounts.change(by, ("acme", "beta")[number % 2], {"quota": 100 + number})
            else:
                keys.issue(by, "acme", KeyTerms())

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(act, range(24)))
    assert (verified(books).entries, verified(books).problem) == (28, None)
    assert {each.actor for each in entries(books, after=4)} == {f"os:{number}" for number in range(24)}
