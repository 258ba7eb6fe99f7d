"""Sessions of the console that customers end: how many in a day."""

from dataclasses import replace

import pytest

from tests.vendor_service.books import Books, on_sqlite
from vendor_service.accounts.keys import KeyTerms, Scope
from vendor_service.acts import sessions
from vendor_service.acts.act import ActContext, Customer
from vendor_service.audit.actors import customer_key
from vendor_service.console.seal import Seal
from vendor_service.console.sessions import CUSTOMERS, begin
from vendor_service.database.tables import ConsoleSession
from vendor_service.errors import APIError
from vendor_service.money.orders import Order

ADMIN = KeyTerms(scopes=frozenset({Scope.ADMIN}))


def ends_one(books: Books, order: Order) -> None:
    """Have a key sign in, and end that session."""
    account, key = books.account(order), books.key(order)
    with books.database.write() as session:
        by = {"account_id": account.id, "key_id": key.id}
        begin(session, Seal(b""), CUSTOMERS, books.clock(), secret_hash=key.secret_hash, **by)
        begun = session.query(ConsoleSession).filter_by(key_id=key.id).one().id
    context = ActContext(books.database, books.clock).by(
        customer_key(key.id), customer=Customer(account, key)
    )
    with context.write() as act:
        sessions.end_session(act, account.name, begun)


@on_sqlite
def test_the_keys_of_a_project_end_so_many_sessions_a_day_and_keep_no_other_from_it(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_MOST_A_DAY", 2)
    whole = books.open(ADMIN)
    order = books.open_project(whole, key=ADMIN)
    second = books.another_key(order, replace(ADMIN, project="search"))
    ends_one(books, order)
    ends_one(books, second)
    with pytest.raises(APIError, match="2 times in 24 hours") as refused:
        ends_one(books, order)
    assert refused.value.code == "conflict"
    ends_one(books, whole)
