"""A long history: hundreds of thousands of charges, written at once as if they had been sold one by one."""

import secrets
from contextlib import closing
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from vendor_service.billing import ledger
from vendor_service.clock import system_clock
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, ApiKey, Hold, LedgerEntry

_AT_ONCE = 5_000
_QUERIES, _PRICE = 2, 100


def write_history(database_url: str, key_id: str, entries: int) -> None:
    """Charge the account of this key so many times for two images, in a ledger that verifies."""
    with closing(Database(database_url)) as database, database.write() as session:
        key = session.get_one(ApiKey, key_id)
        account = session.get_one(Account, key.account_id, with_for_update=True)
        for start in range(0, entries, _AT_ONCE):
            _write(session, account, key, min(_AT_ONCE, entries - start))
        for each in (account, key):
            each.queries_used += _QUERIES * entries
            each.spent_micros += _QUERIES * _PRICE * entries


def _write(session: Session, account: Account, key: ApiKey, count: int) -> None:
    holds: list[dict[str, Any]] = []
    charges: list[dict[str, Any]] = []
    sold: dict[str, Any] = {"account_id": account.id, "key_id": key.id, "images": _QUERIES, "texts": 0}
    sold |= {"image_micros": _PRICE, "text_micros": 20}
    sold |= {"model": "icon-clip", "model_fingerprint": "fp_of_long_ago"}
    for _ in range(count):
        now, hold_id = max(system_clock(), account.ledger_at), f"req_{secrets.token_hex(12)}"
        hold = sold | {"id": hold_id, "created_at": now, "expires_at": now, "state": "settled"}
        hold |= {"cost_micros": _QUERIES * _PRICE, "body_hash": hold_id, "idempotency_key": hold_id}
        holds.append(hold)
        entry = sold | {"seq": account.ledger_seq + 1, "kind": "charge", "hold_id": hold_id}
        entry |= {"amount_micros": -_QUERIES * _PRICE, "created_at": now}
        entry |= {"previous_hash": account.ledger_hash}
        account.ledger_hash = ledger.entry_hash(LedgerEntry(**entry))
        charges.append(entry | {"entry_hash": account.ledger_hash})
        account.ledger_seq, account.ledger_at = account.ledger_seq + 1, now
    with session.no_autoflush:
        session.execute(insert(Hold), holds)
        session.execute(insert(LedgerEntry), charges)
