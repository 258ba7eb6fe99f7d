"""A long history, written in bulk: entries that verify, as so many requests would have left them."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import insert, update

from tests.vendor_service.books import Books
from vendor_service.billing import ledger, totals
from vendor_service.billing.orders import Order
from vendor_service.database.tables import Account, ApiKey, Hold, LedgerEntry

_AT_ONCE = 20_000


def write_history(books: Books, order: Order, entries: int, since: int, until: int) -> None:
    """Charge an account of an empty ledger for one image each, from `since` up to `until` evenly."""
    for begin in range(0, entries, _AT_ONCE):
        with books.locked(order) as (session, account):
            charges = list(
                _charges(account, order, range(begin, min(entries, begin + _AT_ONCE)), entries, since, until)
            )
            holds = [_hold(order, charge) for charge in charges]
            session.execute(insert(Hold), holds)
            session.execute(insert(LedgerEntry), charges)
            account.ledger_seq, account.ledger_hash = charges[-1]["seq"], charges[-1]["entry_hash"]
            account.ledger_at = charges[-1]["created_at"]
    with books.locked(order) as (session, account):
        # As the migration has it: from nothing but the entries.
        totals.insert_from(session, account.id, 1)
        for table, its_id in ((Account, order.account_id), (ApiKey, order.key_id)):
            used = {"queries_used": entries, "spent_micros": 100 * entries}
            session.execute(update(table).where(table.id == its_id).values(used))


def _charges(
    account: Account, order: Order, numbers: range, entries: int, since: int, until: int
) -> Iterator[dict[str, Any]]:
    previous = account.ledger_hash
    for number in numbers:
        entry = LedgerEntry(
            account_id=account.id,
            seq=number + 1,
            kind="charge",
            amount_micros=-100,
            images=1,
            texts=0,
            image_micros=100,
            text_micros=20,
            model=order.model,
            model_fingerprint=order.model_fingerprint,
            key_id=order.key_id,
            hold_id=f"req_{account.id}_{number}",
            created_at=since + (until - since) * number // entries,
            previous_hash=previous,
        )
        previous = entry.entry_hash = ledger.entry_hash(entry)
        yield {key: getattr(entry, key) for key in LedgerEntry.__table__.columns.keys()}  # noqa: SIM118


def _hold(order: Order, charge: dict[str, Any]) -> dict[str, Any]:
    same = (
        "account_id",
        "key_id",
        "model",
        "model_fingerprint",
        "images",
        "texts",
        "image_micros",
        "text_micros",
    )
    return {name: charge[name] for name in same} | {
        "id": charge["hold_id"],
        "state": "settled",
        "cost_micros": 100,
        "body_hash": order.body_hash,
        "created_at": charge["created_at"],
        "expires_at": charge["created_at"],
    }
