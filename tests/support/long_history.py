"""A long history: hundreds of thousands of charges, written at once as if they had been sold one by one."""

import secrets

from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from shared.http.middleware import new_request_id
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, ApiKey, Hold, roll_periods
from vendor_service.database.working_set import ChargeRow, HoldRow
from vendor_service.money import ledger

_AT_ONCE = 5_000
_QUERIES, _PRICE = 2, 100
_CACHE_KIB = 3 * 1024**2  # keys are random: every page of their index is needed again and again


def write_history(database: Database, key_id: str, entries: int, until: int) -> None:
    """Charge the account of this key for two images, `entries` times, evenly up to a moment.

    The first charge is at the account's last entry, or at the beginning of its period if that is later. It
    goes through the ledger itself, so that whatever is kept beside the entries is kept here too.
    """
    with database.write() as session:
        if database.embedded:
            session.execute(text(f"PRAGMA cache_size = -{_CACHE_KIB}"))
        key = session.get_one(ApiKey, key_id)
        account = session.get_one(Account, key.account_id, with_for_update=True)
        since = max(account.period_started_at, account.ledger_at)
        pause = max(0, until - since) // entries
        for start in range(0, entries, _AT_ONCE):
            numbers = range(start, min(entries, start + _AT_ONCE))
            _sell(session, account, key, [since + pause * number for number in numbers])
        if not database.embedded:
            session.execute(text("ANALYZE"))  # PostgreSQL does it by itself, but only about a minute later


def _sell(session: Session, account: Account, key: ApiKey, moments: list[int]) -> None:
    holds = [_settled(account, key, moment) for moment in moments]
    session.execute(insert(Hold), [hold.columns() for hold in holds])
    ledger.write_charges(session, [_charged(account, key, hold) for hold in holds])


def _charged(account: Account, key: ApiKey, hold: HoldRow) -> ChargeRow:
    roll_periods(account, key, hold.created_at)
    for each in (account, key):
        each.queries_used += _QUERIES
        each.spent_micros += hold.cost_micros
    return ledger.charge(account, hold, hold.created_at)


def _settled(account: Account, key: ApiKey, moment: int) -> HoldRow:
    hold_id = new_request_id()
    return HoldRow(
        id=hold_id,
        account_id=account.id,
        key_id=key.id,
        project_id="",
        server=None,
        state="settled",
        model="icon-clip",
        model_fingerprint="fp_of_long_ago",
        counts={"image": _QUERIES},
        prices={"image": _PRICE, "text": 20},
        cost_micros=_QUERIES * _PRICE,
        idempotency_key=secrets.token_hex(16),
        body_hash=hold_id,
        created_at=moment,
        expires_at=moment,
    )
