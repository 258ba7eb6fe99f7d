"""Invitations on PostgreSQL, where somebody may use one while another shuts the account."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from tests.support.vendor_process import wait_until
from tests.vendor_service.books import Books, on_postgres
from tests.vendor_service.database.test_writer import locked, waits_for_a_lock
from vendor_service.acts import accounts, invitations
from vendor_service.acts.act import Act
from vendor_service.console import sessions
from vendor_service.console.seal import Seal
from vendor_service.console.sessions import CUSTOMERS
from vendor_service.database.tables import ConsoleSession, Invitation


@pytest.mark.parametrize("first", ["who shuts all out", "who joins"])
@on_postgres
def test_an_invitation_that_is_used_while_all_are_shut_out_signs_nobody_in(books: Books, first: str) -> None:
    name = books.account(books.open()).name
    with books.database.write() as session:
        code = invitations.invite(Act(session, "os:test", books.clock), name).code

    def join(session: Session) -> None:
        row = invitations.redeem(Act(session, "invitation", books.clock), code)
        if row is not None:
            of = {"account_id": row.account_id, "invitation_id": row.id}
            sessions.begin(session, Seal(b""), CUSTOMERS, books.clock(), secret_hash=row.secret_hash, **of)

    def shut_out(session: Session) -> None:
        accounts.suspend(Act(session, "os:test", books.clock), name)

    def alone(work: Callable[[Session], None]) -> None:
        with books.database.write() as session:
            work(session)

    now, later = (shut_out, join) if first == "who shuts all out" else (join, shut_out)
    with ThreadPoolExecutor(1) as pool, locked(books.url, "SELECT %s::text", "") as other:
        with books.database.write() as session:
            now(session)
            session.flush()
            doing = pool.submit(alone, later)
            wait_until(lambda: doing.done() or waits_for_a_lock(other))
        doing.result(20)
    with books.database.read() as session:
        assert session.scalars(select(ConsoleSession)).all() == []
        row = session.scalars(select(Invitation)).one()
        assert (row.used_at is None) == (row.withdrawn_at is not None) == (now is shut_out)
