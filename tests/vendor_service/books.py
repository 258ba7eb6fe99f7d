"""Real books in a temporary database, for tests of money that need no model."""

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from shared.billing import Invoice
from shared.kinds import Kind
from tests.support.postgres import Postgres
from tests.vendor_service.clocks import FakeClock
from vendor_service.accounts.accounts import Terms, open_account
from vendor_service.accounts.keys import KeyTerms, issue_key
from vendor_service.accounts.projects import ProjectTerms, create_project
from vendor_service.clock import ClockWatch
from vendor_service.database import schema
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, ApiKey, LedgerEntry, limited_by
from vendor_service.errors import CommitInDoubt
from vendor_service.money import clock_check, invoices, prices
from vendor_service.money.admission import Admission
from vendor_service.money.orders import Admitted, Order
from vendor_service.money.repair import Repair, repair
from vendor_service.money.verification import verify

HOLD_SECONDS = 60
# For tests of what a database has no part in: books on SQLite suffice.
on_sqlite = pytest.mark.parametrize("books", ["sqlite"], indirect=True)
on_postgres = pytest.mark.parametrize("books", ["postgresql"], indirect=True)
_ANY_KEY = KeyTerms()
_NO_LIMITS = ProjectTerms()
# Books in PostgreSQL are made new by these, which takes a fifth of what a database of their own would.
_KEEP = """
CREATE SCHEMA fresh;
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('CREATE TABLE fresh.%I AS TABLE public.%I', name, name);
    END LOOP;
END $$
"""
_RENEW = """
SET LOCAL lock_timeout = '5s';
SET LOCAL session_replication_role = replica;
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT DISTINCT tgrelid::regclass FROM pg_trigger WHERE tgenabled = 'D' LOOP
        EXECUTE format('ALTER TABLE %s ENABLE TRIGGER USER', name);
    END LOOP;
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'fresh' LOOP
        EXECUTE format('DELETE FROM public.%I', name);
        EXECUTE format('INSERT INTO public.%I OVERRIDING SYSTEM VALUE TABLE fresh.%I', name, name);
    END LOOP;
    PERFORM setval(seqrelid::regclass, 1, false) FROM pg_sequence;
END $$
"""


class Books:
    """A database with the prices of one model (an image 100, a text 20), and its admission."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = FakeClock()
        self.watch = ClockWatch(self.clock, self.clock.steady)
        self.admission = Admission(database, self.clock, HOLD_SECONDS, watch=self.watch)
        self._numbers = count()
        with database.write() as session:
            prices.publish(session, "icon-clip", {"image": 100, "text": 20}, self.clock())

    @property
    def url(self) -> str:
        """Where the database is, as an operator writes it and other programs take it."""
        return self.database.engine.url.render_as_string(hide_password=False).replace("+psycopg", "", 1)

    def open(self, key: KeyTerms = _ANY_KEY, **terms: Any) -> Order:
        """Open an account on these `Terms`, with a key; an order of one image by it, to be varied."""
        with self.database.write() as session:
            account = open_account(session, f"account-{next(self._numbers)}", Terms(**terms), self.clock)
            issued = issue_key(session, account, key, self.clock)
        return Order("", account.id, issued.key_id, "icon-clip", "fp_1", {"image": 1}, body_hash="b")

    def open_project(
        self, order: Order, terms: ProjectTerms = _NO_LIMITS, key: KeyTerms = _ANY_KEY, name: str = "search"
    ) -> Order:
        """Add a project to the account of an order, with a key; the same order by that key."""
        with self.locked(order) as (session, account):
            create_project(session, account, name, terms, self.clock)
        return self.another_key(order, replace(key, project=name))

    def another_key(self, order: Order, key: KeyTerms = _ANY_KEY) -> Order:
        """Issue one more key to the account of an order; the same order by that key."""
        with self.locked(order) as (session, account):
            return replace(order, key_id=issue_key(session, account, key, self.clock).key_id)

    def admit(self, order: Order, **changes: Any) -> Admitted:
        """Admit a variation of an order under a request id of its own."""
        return self.admit_by(self.admission, asking(order, **changes))

    def admit_by(self, process: Admission, order: Order) -> Admitted:
        """Admit an order under a request id of its own, in one of several processes."""
        return process.admit(replace(order, request_id=f"req_{next(self._numbers)}")).result()

    def buy(self, order: Order, *, buckets: Collection[int] = (), **changes: Any) -> Admitted:
        """Admit and settle; `buckets` are those that the answers lie in."""
        admitted = self.admit(order, **changes)
        if not admitted.replayed:
            self.admission.settle(order.account_id, admitted.request_id, buckets).result()
        return admitted

    def sell(self, order: Order, *, buckets: Collection[int] = (), **changes: Any) -> Admitted:
        """Charge at once for a variation of an order under a request id of its own."""
        return self.sell_by(self.admission, asking(order, **changes), buckets)

    def sell_by(self, process: Admission, order: Order, buckets: Collection[int] = ()) -> Admitted:
        """Charge at once for an order under a request id of its own, in one of several processes."""
        return process.sell(replace(order, request_id=f"req_{next(self._numbers)}"), buckets).result()

    def account(self, order: Order) -> Account:
        with self.database.read() as session:
            return session.get_one(Account, order.account_id)

    def key(self, order: Order) -> ApiKey:
        with self.database.read() as session:
            return session.get_one(ApiKey, order.key_id)

    def entries(self, order: Order) -> list[LedgerEntry]:
        with self.database.read() as session:
            mine = select(LedgerEntry).where(LedgerEntry.account_id == order.account_id)
            return list(session.scalars(mine.order_by(LedgerEntry.seq)))

    def invoice(self, order: Order, month: str = "2026-11") -> Invoice:
        """The invoice of a month, as the server issues it."""
        return invoices.issue(self.database, order.account_id, month, self.clock(), self.watch)

    @contextmanager
    def locked(self, order: Order) -> Iterator[tuple[Session, Account]]:
        """A transaction that may change the account, as a command's does."""
        with self.database.write() as session:
            yield session, session.get_one(Account, order.account_id, with_for_update=True)

    def repair(self, order: Order) -> Repair:
        """What `vendor accounts repair` does."""
        with self.locked(order) as (session, account):
            return repair(session, account, self.clock())

    def misdate(self, order: Order, now: int, **changes: Any) -> None:
        """Buy from a process whose clock says `now`, and which has nobody to tell it that this is wrong."""
        wrong = Admission(self.database, lambda: now, HOLD_SECONDS)
        with closing(wrong):
            request_id = f"req_{next(self._numbers)}"
            wrong.admit(asking(order, request_id=request_id, **changes)).result()
            wrong.settle(order.account_id, request_id).result()

    def tamper(self, change: str) -> None:
        """Change what the triggers protect, as somebody could who owns the database."""
        with self.database.write() as session:
            if self.database.embedded:
                triggers = session.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'"))
                for name in triggers.all():
                    session.execute(text(f"DROP TRIGGER {name}"))
            else:
                for table in ("audit_entries", "ledger_entries", "final_invoices", "credit_notes"):
                    session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
            session.execute(text(change))

    def problem(self, order: Order) -> str | None:
        """What `vendor ledger verify` finds wrong."""
        with self.database.read() as session:
            return verify(session, session.get_one(Account, order.account_id)).problem

    def check(self, order: Order, *others: Order, limits: bool = True) -> Account:
        """Assert that counters are sums of ledger and holds, that the chain is whole, and no limit passed.

        The account is returned. The `others` are by other keys of it.
        """
        with self.database.read() as session:
            account = session.get_one(Account, order.account_id)
            assert verify(session, account).problem is None
            for each in (order, *others) if limits else ():
                _check_limits(account, session.get_one(ApiKey, each.key_id))
        return account


def asking(order: Order, *, images: int | None = None, texts: int | None = None, **changes: Any) -> Order:
    """A variation of an order; it asks so many images and texts, if that is said."""
    said: dict[Kind, int | None] = {"image": images, "text": texts}
    counts = {**order.counts, **{kind: number for kind, number in said.items() if number is not None}}
    return replace(order, counts=counts, **changes)


def _check_limits(account: Account, key: ApiKey) -> None:
    """Assert that no limit is passed of the account, the key or its project."""
    assert key.concurrency is None or key.requests_held <= key.concurrency
    for each in limited_by(account, key):
        assert each.quota is None or each.queries_used + each.queries_held <= each.quota
        limit = each.spend_limit_micros
        assert limit is None or each.spent_micros + each.held_micros <= limit
    assert account.credit_micros is None or account.credit_micros >= account.held_micros
    limit = account.coverage_limit
    assert limit is None or account.buckets_covered + account.queries_held <= limit


def lay_out(url: str) -> None:
    """Put this version's tables into a SQLite file that is not there yet, which is copied in no time."""
    file = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not file.exists():
        file.write_bytes(_empty_file())


@cache
def laid_out(server: Postgres) -> str:
    """The URL of a database with this version's tables, to be copied and not to be used."""
    url = server.create_database()
    with closing(Database(url)) as database:
        schema.upgrade(database)
    return url


def renewed(server: Postgres) -> str:
    """The URL of a database with this version's tables as new, which one test after another uses."""
    url = _shared(server)
    try:
        with psycopg.connect(url) as connection:
            connection.execute(_RENEW)
    except psycopg.Error:  # a failed test still holds its locks
        _shared.cache_clear()
        url = _shared(server)
    return url


@cache
def _shared(server: Postgres) -> str:
    url = server.create_database(of=laid_out(server))
    with psycopg.connect(url) as connection:
        connection.execute(_KEEP)
    return url


def lose_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every transaction that writes is committed, and nobody hears of it."""
    write = Database.write

    @contextmanager
    def unanswered(self: Database, lock_seconds: float | None = None) -> Iterator[Session]:
        with write(self, lock_seconds) as session:
            yield session
        raise CommitInDoubt.unkeyed()

    monkeypatch.setattr(Database, "write", unanswered)


@cache
def _empty_file() -> bytes:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "empty.db"
        with closing(Database(f"sqlite:///{file}")) as database:
            schema.upgrade(database)
        return file.read_bytes()


@contextmanager
def opened_books(url: str) -> Iterator[Books]:
    """Fresh books in an empty database, or in one that has this version's tables.

    Their clock stands in for that of a database server, which nobody can set.
    """
    lay_out(url)
    with closing(Database(url)) as database, pytest.MonkeyPatch.context() as patch:
        if schema.current(database) != schema.latest():
            schema.upgrade(database)
        books = Books(database)
        if not database.embedded:
            patch.setattr(clock_check, "server_time", lambda _: books.clock.steady())
        with closing(books.admission):
            yield books
