"""Operators' tokens: two who change one at once each see what the other did."""

from tests.vendor_service.books import Books, on_postgres
from vendor_service.acts import operators
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.clock import SECOND
from vendor_service.database.tables import OperatorToken


@on_postgres
def test_of_two_rotations_at_once_the_later_one_keeps_the_earlier_secret(books: Books) -> None:
    with books.database.write() as session:
        made = operators.issue(Act(session, "os:test", books.clock), "test", [OperatorScope.READ])
    with books.database.write() as session:
        row = session.get_one(OperatorToken, made.token_id)  # as it is before it is locked
        with books.database.write() as other:
            second = operators.rotate(Act(other, "os:test", books.clock), made.token_id, 60)
        third = operators.rotate(Act(session, "os:test", books.clock), made.token_id, 60)
        assert (row.former_hash, row.secret_hash) == tuple(hash_of(each.token) for each in (second, third))


def test_a_secret_that_got_no_grace_is_good_by_no_clock(books: Books) -> None:
    with books.database.write() as session:
        act = Act(session, "os:test", books.clock)
        made = operators.issue(act, "test", [OperatorScope.READ])
        operators.rotate(act, made.token_id, 0)
        row = session.get_one(OperatorToken, made.token_id)
        assert not row.is_secret(hash_of(made.token), books.clock() - 299 * SECOND)
        assert row.former_until == books.clock()


def hash_of(token: str) -> str:
    split = operators.split(token)
    assert split is not None
    return split[1]
