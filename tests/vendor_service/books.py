"""Real books in a temporary SQLite file, for tests of money that need no model."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from shared.embeddings import Prices
from tests.vendor_service.clocks import FakeClock
from vendor_service.accounts.accounts import Terms, open_account
from vendor_service.accounts.keys import issue_key
from vendor_service.billing import prices
from vendor_service.billing.admission import Admission, Admitted, Order
from vendor_service.billing.ledger import GENESIS_HASH, entry_hash
from vendor_service.database import schema
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, Hold, LedgerEntry

HOLD_SECONDS = 60


class Books:
    """A database with the prices of one model (an image 100, a text 20), and its admission."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = FakeClock()
        self.admission = Admission(database, self.clock, HOLD_SECONDS)
        self._numbers = count()
        with database.write() as session:
            prices.publish(session, "icon-clip", Prices(image_micros=100, text_micros=20), self.clock())

    def open(self, **terms: Any) -> Order:
        """Open an account on these `Terms`; an order of one image by it, to be varied."""
        with self.database.write() as session:
            account = open_account(session, f"account-{next(self._numbers)}", Terms(**terms), self.clock)
            key = issue_key(session, account, "", self.clock)
        return Order("", account.id, key.key_id, "icon-clip", "fp_1", images=1, texts=0, body_hash="b")

    def admit(self, order: Order, **changes: Any) -> Admitted:
        """Admit a variation of an order under a request id of its own."""
        return self.admission.admit(replace(order, request_id=f"req_{next(self._numbers)}", **changes))

    def buy(self, order: Order, **changes: Any) -> Admitted:
        """Admit and settle."""
        admitted = self.admit(order, **changes)
        if not admitted.replayed:
            self.admission.settle(order.account_id, admitted.request_id)
        return admitted

    def account(self, order: Order) -> Account:
        with self.database.read() as session:
            return session.get_one(Account, order.account_id)

    def entries(self, order: Order) -> list[LedgerEntry]:
        with self.database.read() as session:
            mine = select(LedgerEntry).where(LedgerEntry.account_id == order.account_id)
            return list(session.scalars(mine.order_by(LedgerEntry.seq)))

    def check(self, order: Order) -> None:
        """Assert that the account's counters are sums of its ledger and its holds, and its chain is whole."""
        account, entries = self.account(order), self.entries(order)
        charges = [entry for entry in entries if entry.kind == "charge"]
        in_period = [entry for entry in charges if entry.created_at >= account.period_started_at]
        assert account.queries_used == sum(entry.images + entry.texts for entry in in_period)
        assert account.spent_micros == -sum(entry.amount_micros for entry in in_period)
        if account.credit_micros is not None:
            assert account.credit_micros == sum(entry.amount_micros for entry in entries)
        with self.database.read() as session:
            held = select(func.sum(Hold.images + Hold.texts), func.sum(Hold.cost_micros))
            queries, cost = session.execute(
                held.where(Hold.account_id == account.id, Hold.state == "open")
            ).one()
            settled = select(func.count()).where(Hold.account_id == account.id, Hold.state == "settled")
            assert session.scalar(settled) == len(charges)
        assert (account.queries_held, account.held_micros) == (queries or 0, cost or 0)
        previous = GENESIS_HASH
        for seq, entry in enumerate(entries, start=1):
            assert (entry.seq, entry.previous_hash, entry.entry_hash) == (seq, previous, entry_hash(entry))
            previous = entry.entry_hash
        assert (account.ledger_seq, account.ledger_hash) == (len(entries), previous)


@contextmanager
def opened_books(folder: Path) -> Iterator[Books]:
    """Fresh books in a folder."""
    with closing(Database(f"sqlite:///{folder / 'books.db'}")) as database:
        schema.upgrade(database)
        yield Books(database)
