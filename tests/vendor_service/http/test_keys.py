"""Keys: shown once, kept as a hash, told from every near miss."""

import hashlib

import pytest
from sqlalchemy import text

from shared.keys import NewSecret
from tests.support.postgres import Postgres
from tests.vendor_service.books import Books, laid_out, opened_books
from vendor_service.accounts.accounts import Terms, find_account, open_account
from vendor_service.accounts.keys import KeyTerms, issue_key, revoke_key, rotate_key
from vendor_service.acts import keys as acts
from vendor_service.acts.act import Act
from vendor_service.clock import SECOND
from vendor_service.database.tables import ApiKey
from vendor_service.errors import APIError, OperatorError, UsageError
from vendor_service.http.authentication import verify_key


def test_only_the_hash_of_a_key_is_stored(books: Books) -> None:
    with books.database.write() as session:
        issued = issue_key(
            session, open_account(session, "acme", Terms(), books.clock), KeyTerms(), books.clock
        )
    _, key_id, secret = issued.api_key.split("_")
    assert key_id == issued.key_id
    assert len(bytes.fromhex(secret)) >= 16
    with books.database.read() as session:
        stored = session.execute(text("SELECT * FROM api_keys")).mappings().one()
    assert stored["secret_hash"] == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in str(stored)


def test_a_key_is_known_whole_and_only_whole(books: Books) -> None:
    with books.database.write() as session:
        account = open_account(session, "acme", Terms(), books.clock)
        one, two = (issue_key(session, account, KeyTerms(), books.clock) for _ in range(2))
    swapped = one.api_key[: -len(two.api_key.split("_")[2])] + two.api_key.split("_")[2]
    with books.database.read() as session:
        found = verify_key(session, one.api_key, books.clock())
        assert found is not None
        assert (found.account.name, found.key.id) == ("acme", one.key_id)
        for wrong in (
            swapped,
            one.api_key[:-1],
            one.api_key + "0",
            one.api_key.upper(),
            one.key_id,
            "",
            "tk__",
        ):
            assert verify_key(session, wrong, books.clock()) is None


def test_a_revoked_key_keeps_the_time_of_its_end(books: Books) -> None:
    with books.database.write() as session:
        issued = issue_key(
            session, open_account(session, "acme", Terms(), books.clock), KeyTerms(), books.clock
        )
        revoked_at = revoke_key(session, issued.key_id, books.clock).revoked_at
        books.clock.advance(5)
        assert revoke_key(session, issued.key_id, books.clock).revoked_at == revoked_at
        with pytest.raises(OperatorError, match="no key"):
            revoke_key(session, "0" * 16, books.clock)


def test_a_rotated_key_keeps_its_limits_and_the_former_secret_for_its_grace(books: Books) -> None:
    order = books.open(KeyTerms(quota=3))
    books.buy(order, images=2)
    with books.database.write() as session:
        second = rotate_key(session, order.key_id, 60, books.clock)
        third = rotate_key(session, order.key_id, 60, books.clock)

    def known(issued: NewSecret) -> bool:
        with books.database.read() as session:
            return verify_key(session, issued.api_key, books.clock()) is not None

    assert (known(second), known(third)) == (True, True)
    books.clock.advance(60)
    assert (known(second), known(third)) == (False, True)
    with pytest.raises(APIError, match="1 left of its quota"):
        books.buy(order, images=2)
    with books.database.write() as session:
        rotate_key(session, order.key_id, 0, books.clock)
        for grace in (-1, 10**9):
            with pytest.raises(UsageError, match="grace"):
                rotate_key(session, order.key_id, grace, books.clock)
        revoke_key(session, order.key_id, books.clock)
        with pytest.raises(OperatorError, match="revoked"):
            rotate_key(session, order.key_id, 0, books.clock)
    assert not known(third)


def test_a_secret_that_got_no_grace_is_good_by_no_clock(books: Books) -> None:
    with books.locked(books.open()) as (session, account):
        issued = issue_key(session, account, KeyTerms(), books.clock)
    with books.database.write() as session:
        rotate_key(session, issued.key_id, 0, books.clock)
    with books.database.read() as session:
        assert verify_key(session, issued.api_key, books.clock() - 299 * SECOND) is None


@pytest.mark.parametrize("name", ["", "Acme", "9lives", "a b", "a/b", "-a", "ä", "a" * 64, "a\n"])
def test_a_name_that_cannot_be_is_refused(books: Books, name: str) -> None:
    with books.database.write() as session, pytest.raises(UsageError, match="name"):
        open_account(session, name, Terms(), books.clock)


@pytest.mark.parametrize(
    "terms",
    [
        Terms(quota=-1),
        Terms(quota=2**53),
        Terms(spend_limit_micros=-1),
        Terms(credit_micros=2**63),
        Terms(queries_per_second=0),
    ],
)
def test_numbers_that_cannot_be_are_refused(books: Books, terms: Terms) -> None:
    with books.database.write() as session, pytest.raises(UsageError, match="must be between"):
        open_account(session, "acme", terms, books.clock)


def test_a_name_is_taken_once_and_a_missing_account_is_said_to_be(books: Books) -> None:
    with books.database.write() as session:
        open_account(session, "acme", Terms(credit_micros=5), books.clock)
        with pytest.raises(OperatorError, match="already"):
            open_account(session, "acme", Terms(), books.clock)
        with pytest.raises(OperatorError, match="vendor accounts list"):
            find_account(session, "acne")


def test_of_two_rotations_at_once_the_later_one_keeps_the_earlier_secret(postgres: Postgres) -> None:
    with opened_books(postgres.create_database(of=laid_out(postgres))) as books:
        with books.locked(books.open()) as (session, account):
            first = issue_key(session, account, KeyTerms(), books.clock)
        with books.database.write() as session:
            key = session.get_one(ApiKey, first.key_id)  # as who asks for it has it before it is locked
            with books.database.write() as other:
                second = acts.rotate(Act(other, "os:test", books.clock), key.id, 60)
            third = acts.rotate(Act(session, "os:test", books.clock), key.id, 60)
        with books.database.read() as session:
            good = [
                verify_key(session, each.api_key, books.clock()) is not None
                for each in (first, second, third)
            ]
        assert good == [False, True, True]
