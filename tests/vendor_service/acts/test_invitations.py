"""Invitations on PostgreSQL, where somebody may use one while another shuts the account."""

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import select

from tests.support.vendor_process import wait_until
from tests.vendor_service.books import Books, on_postgres
from tests.vendor_service.database.test_writer import locked, waits_for_a_lock
from vendor_service.acts import accounts, invitations
from vendor_service.acts.act import Act
from vendor_service.database.tables import Invitation


@on_postgres
def test_an_invitation_that_is_used_while_all_are_shut_out_signs_nobody_in(books: Books) -> None:
    order = books.open()
    name = books.account(order).name
    with books.database.write() as session:
        code = invitations.invite(Act(session, "os:test", books.clock), name).code

    def redeem() -> bool:
        with books.database.write() as session:
            return invitations.redeem(Act(session, "invitation", books.clock), code) is not None

    with ThreadPoolExecutor(1) as pool, locked(books.url, "SELECT %s::text", "") as other:
        with books.database.write() as session:
            accounts.suspend(Act(session, "os:test", books.clock), name)
            joining = pool.submit(redeem)
            wait_until(lambda: joining.done() or waits_for_a_lock(other))
        assert joining.result(20) is False
    with books.database.read() as session:
        row = session.scalars(select(Invitation)).one()
        assert (row.used_at, row.withdrawn_at) == (None, books.clock())
