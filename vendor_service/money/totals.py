"""Running totals of the ledger: sums by hour and by all that a question about money groups by.

They are written in the transaction of the entries that they sum up, one statement for all that it appends.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from vendor_service.clock import HOUR
from vendor_service.database.tables import LedgerTotal

_TABLE = LedgerTotal.__table__


class TotalKey(NamedTuple):
    """The key of a total in its table, beside the account: what its entries have in common."""

    hour: int
    kind: str
    key_id: str
    model: str
    model_fingerprint: str
    sold: str
    unit_micros: int


@dataclass
class Sums:
    """The sums of the entries of one total."""

    entries: int = 0
    requests: int = 0
    quantity: int = 0
    amount_micros: int = 0
    first_seq: int = 0
    last_seq: int = 0


Totals = dict[TotalKey, Sums]


def add(totals: Totals, entry: Any) -> None:  # noqa: ANN401 - an entry, or a row of its columns
    """Count one more entry: in a total for each kind of what it sold, or in one of its own."""
    sold = [(kind, entry.prices[kind], number) for kind, number in sorted(entry.counts.items()) if number]
    for place, (kind, unit_micros, quantity) in enumerate(sold or [("", 0, 0)]):
        key = TotalKey(
            hour=entry.created_at // HOUR,
            kind=entry.kind,
            key_id=entry.key_id or "",
            model=entry.model or "",
            model_fingerprint=entry.model_fingerprint or "",
            sold=kind,
            unit_micros=unit_micros,
        )
        sums = totals.setdefault(key, Sums(first_seq=entry.seq))
        sums.entries += place == 0
        sums.requests += quantity > 0
        sums.quantity += quantity
        sums.amount_micros += -quantity * unit_micros if sold else entry.amount_micros
        sums.last_seq = entry.seq


def in_hour(session: Session, account_id: str, hour: int) -> Totals:
    """The totals of one hour, as they are written."""
    mine = (LedgerTotal.account_id == account_id, LedgerTotal.hour == hour)
    totals = {}
    for row in session.execute(select(*_TABLE.columns).where(*mine)).mappings():
        key = TotalKey(**{name: row[name] for name in TotalKey._fields})
        totals[key] = Sums(**{name: row[name] for name in Sums.__dataclass_fields__})
    return totals


def count(session: Session, entries: Iterable[Any]) -> None:
    """Count entries that this transaction appends to the ledger; those of an account in their order."""
    by_account: dict[str, Totals] = {}
    for entry in entries:
        add(by_account.setdefault(entry.account_id, {}), entry)
    rows = [
        {"account_id": account_id, **key._asdict(), **vars(sums)}
        for account_id, totals in sorted(by_account.items())
        for key, sums in sorted(totals.items())
    ]
    if rows:
        connection = session.connection()
        connection.execute(_upsert(connection.dialect.name), rows)


@cache  # to put a statement together takes longer than to run it
def _upsert(dialect: str) -> Insert:
    adding: Any = (postgresql if dialect == "postgresql" else sqlite).insert(LedgerTotal)
    summed = ("entries", "requests", "quantity", "amount_micros")
    added = {name: _TABLE.columns[name] + adding.excluded[name] for name in summed}
    upsert: Insert = adding.on_conflict_do_update(
        index_elements=list(_TABLE.primary_key), set_=added | {"last_seq": adding.excluded.last_seq}
    )
    return upsert
