"""Books by how many entries they have: what is read, written and verified of one account's ledger.

The account has bought for a year. `benchmarks/growth.py` runs this.
"""

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
from sqlalchemy import select
from sqlalchemy.orm import Session

from benchmarks.costs import Cost, once, whole
from shared.http.middleware import new_request_id
from tests.support.long_history import write_history
from tests.support.postgres import started_postgres
from vendor_service.accounts.accounts import Terms, open_account
from vendor_service.accounts.keys import KeyTerms, issue_key
from vendor_service.clock import DAY, month_of, month_start, system_clock
from vendor_service.database import schema
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, ApiKey
from vendor_service.database.view import View
from vendor_service.money import invoices, ledger, prices
from vendor_service.money.admission import Admission
from vendor_service.money.orders import Order
from vendor_service.money.usage import account_status, usage_report
from vendor_service.money.verification import verify

_MODEL = "icon-clip"
_MUCH = 10**12
_AT_ONCE = 200  # charges of which the rate in bulk is told


def sqlite(entries: int, folder: Path) -> Iterator[Cost]:
    """Books in a file."""
    with closing(Database(f"sqlite:///{folder / f'books-{entries}.db'}")) as database:
        yield from _costs(database, entries)


def postgresql(entries: int, folder: Path) -> Iterator[Cost]:
    """Books in PostgreSQL, whose server ends with the measurement."""
    with started_postgres(folder / "postgresql") as postgres:
        name = f"books_{entries}"
        with psycopg.connect(postgres.uri, autocommit=True) as connection:
            there = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
            if there is None:
                connection.execute(f"CREATE DATABASE {name}".encode())
        with closing(Database(postgres.uri.replace("/postgres?", f"/{name}?"))) as database:
            yield from _costs(database, entries)


def _costs(database: Database, entries: int) -> Iterator[Cost]:
    order = _filled(database, entries)
    view, now = View.whole(order.account_id), system_clock()
    month = month_of(month_start(now) - 1)

    def reading(read: Callable[[Session], object]) -> Callable[[], None]:
        def work() -> None:
            with database.read() as session:
                read(session)

        return work

    def invoice(session: Session) -> object:
        return invoices.summed(session, session.get_one(Account, view.account_id), month, final=False)

    pages = {
        "balance and limits": lambda session: account_status(session, view, now),
        "ledger page, the last": lambda session: ledger.page(session, view, entries - 100, 100),
        "ledger page, the middle": lambda session: ledger.page(session, view, entries // 2, 100),
        "usage of 30 days": lambda session: usage_report(session, view, "day", now - 30 * DAY, now),
        "invoice of a month": invoice,
    }
    for what, read in pages.items():
        yield once(what, reading(read))
    with _selling(database) as admission:
        yield once("charge, alone", lambda: _sell(admission, order, 1))
        bulk = once("charge, in bulk", lambda: _sell(admission, order, _AT_ONCE), times=15)
        yield replace(bulk, seconds=bulk.seconds / _AT_ONCE)
    yield whole("verification", reading(lambda session: _verify(session, order.account_id)))[0]


def _filled(database: Database, entries: int) -> Order:
    """An order of the account with so many entries, or a few more, which are written if need be."""
    schema.upgrade(database)
    now = system_clock()
    with database.write() as session:
        account = session.scalar(select(Account).where(Account.name == "growth"))
        if account is None:
            account = open_account(session, "growth", Terms(_MUCH, "total", _MUCH), lambda: now - 365 * DAY)
            issue_key(session, account, KeyTerms(), system_clock)
            prices.publish(session, _MODEL, {"image": 100, "text": 20}, now - 365 * DAY)
        account_id, missing = account.id, entries - account.ledger_seq
        key_id = session.scalars(select(ApiKey.id).where(ApiKey.account_id == account_id)).one()
    if missing > 0:
        write_history(database, key_id, missing, now)
    return Order("", account_id, key_id, _MODEL, "fp_growth", {"image": 1}, body_hash="b")


@contextmanager
def _selling(database: Database) -> Iterator[Admission]:
    with ExitStack() as stack:
        yield stack.enter_context(closing(Admission(database, system_clock, hold_seconds=60)))


def _sell(admission: Admission, order: Order, charges: int) -> None:
    """Admit and settle so many orders at once, as a vendor does that answers them."""
    orders = [
        replace(order, request_id=new_request_id(), idempotency_key=secrets.token_hex(16))
        for _ in range(charges)
    ]
    wait([admission.admit(each) for each in orders])
    for each in [admission.settle(each.account_id, each.request_id) for each in orders]:
        each.result()


def _verify(session: Session, account_id: str) -> None:
    problem = verify(session, session.get_one(Account, account_id)).problem
    assert problem is None, problem
