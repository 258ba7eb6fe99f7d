"""Running totals of the ledger: sums by hour and by all that a question about money groups by.

They are written in the transaction of the entries that they sum up, one statement for all that it appends.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Insert, Select, and_, case, delete, event, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from vendor_service.clock import HOUR
from vendor_service.database.rows import ChargeRow
from vendor_service.database.tables import LedgerEntry, LedgerTotal

_TABLE = LedgerTotal.__table__
_KEPT = "ledger totals"  # in a session's `info`


class TotalKey(NamedTuple):
    """The key of a total in its table, beside the account: what its entries have in common."""

    hour: int
    kind: str
    key_id: str
    model: str
    model_fingerprint: str
    image_micros: int
    text_micros: int


@dataclass
class Sums:
    """What the entries of one total add up to."""

    entries: int = 0
    image_requests: int = 0
    text_requests: int = 0
    images: int = 0
    texts: int = 0
    amount_micros: int = 0
    first_seq: int = 0
    last_seq: int = 0

    def add(self, entry: Any) -> None:  # noqa: ANN401 - an entry, or a row of its columns
        """Count one more entry."""
        self.first_seq = min(self.first_seq, entry.seq) if self.entries else entry.seq
        self.last_seq = max(self.last_seq, entry.seq)
        self.entries += 1
        self.image_requests += entry.images > 0
        self.text_requests += entry.texts > 0
        self.images += entry.images
        self.texts += entry.texts
        self.amount_micros += entry.amount_micros


def key_of(entry: Any, at: int) -> TotalKey:  # noqa: ANN401 - an entry, or a row of its columns
    """The group of an entry that belongs to the instant `at`."""
    return TotalKey(
        hour=at // HOUR,
        kind=entry.kind,
        key_id=entry.key_id or "",
        model=entry.model or "",
        model_fingerprint=entry.model_fingerprint or "",
        image_micros=entry.image_micros,
        text_micros=entry.text_micros,
    )


def keep(session: Session) -> None:
    """Count what this session appends to the ledger, with each flush."""
    if _KEPT not in session.info:
        session.info[_KEPT] = True
        event.listen(session, "after_flush", _count_flushed)


def in_hour(session: Session, account_id: str, hour: int) -> dict[TotalKey, Sums]:
    """The totals of one hour, as they are written."""
    found = session.execute(select(*_TABLE.columns).where(*_of(account_id), LedgerTotal.hour == hour))
    totals = {}
    for row in found.mappings():
        group = TotalKey(**{name: row[name] for name in TotalKey._fields})
        totals[group] = Sums(**{name: row[name] for name in Sums.__dataclass_fields__})
    return totals


def rebuild(session: Session, account_id: str, from_hour: int) -> None:
    """Sum up anew what belongs to `from_hour` and later, from the ledger itself."""
    later = (*_of(account_id), LedgerTotal.hour >= from_hour)
    first = session.scalar(select(func.min(LedgerTotal.first_seq)).where(*later))
    session.execute(delete(LedgerTotal).where(*later))
    if first is not None:
        insert_from(session, account_id, first)


def insert_from(session: Session, account_id: str, first: int) -> None:
    """Sum up the entries from `first` on, of which there must be no totals."""
    columns = [column.key for column in _TABLE.columns]
    session.execute(insert(LedgerTotal).from_select(columns, _summed(session, account_id, first)))


def redatings(session: Session, account_id: str) -> Sequence[LedgerEntry]:
    """The few entries that say that others belong to their own date, oldest first."""
    # A range, and no order: SQLite would rather read the whole ledger in its order than the index of these.
    mine = (LedgerEntry.account_id == account_id, LedgerEntry.redates_seq > 0)
    return sorted(session.scalars(select(LedgerEntry).where(*mine)), key=lambda each: each.seq)


def belongs_at(session: Session, account_id: str) -> ColumnElement[int]:
    """The SQL of the instant that an entry belongs to: its own, or that of the last entry that redates it."""
    redated = [
        (and_(LedgerEntry.seq >= each.redates_seq, LedgerEntry.seq < each.seq), each.created_at)
        for each in reversed(redatings(session, account_id))
    ]
    at = LedgerEntry.created_at.expression
    return case(*redated, else_=at) if redated else at


def _of(account_id: str) -> tuple[Any, ...]:
    return (LedgerTotal.account_id == account_id,)


def _summed(session: Session, account_id: str, first: int) -> Select[*tuple[Any, ...]]:
    entries = (
        select(
            LedgerEntry.account_id,
            (belongs_at(session, account_id) // HOUR).label("hour"),
            LedgerEntry.kind,
            *(
                func.coalesce(column, "").label(column.key)
                for column in (LedgerEntry.key_id, LedgerEntry.model, LedgerEntry.model_fingerprint)
            ),
            LedgerEntry.image_micros,
            LedgerEntry.text_micros,
            LedgerEntry.images,
            LedgerEntry.texts,
            LedgerEntry.amount_micros,
            LedgerEntry.seq,
        )
        .where(LedgerEntry.account_id == account_id, LedgerEntry.seq >= first)
        .subquery()
    )
    group = [entries.c[name] for name in ("account_id", *TotalKey._fields)]
    sums = [
        func.count(),
        func.count().filter(entries.c.images > 0),
        func.count().filter(entries.c.texts > 0),
        *(func.sum(entries.c[name]) for name in ("images", "texts", "amount_micros")),
        func.min(entries.c.seq),
        func.max(entries.c.seq),
    ]
    return select(*group, *sums).group_by(*group)


def _count_flushed(session: Session, _flushing: object) -> None:
    count(session, (each for each in session.new if isinstance(each, LedgerEntry)))


def count(session: Session, entries: Iterable[LedgerEntry | ChargeRow]) -> None:
    """Count entries that this transaction appends to the ledger."""
    totals: dict[tuple[str, TotalKey], Sums] = {}
    for entry in entries:
        totals.setdefault((entry.account_id, key_of(entry, entry.created_at)), Sums()).add(entry)
    if totals:
        connection = session.connection()
        rows = [
            {"account_id": account_id, **group._asdict(), **vars(sums)}
            for (account_id, group), sums in sorted(totals.items(), key=lambda each: each[0])
        ]
        connection.execute(_upsert(connection.dialect.name), rows)


@cache  # to put a statement together takes longer than to run it
def _upsert(dialect: str) -> Insert:
    adding: Any = (postgresql if dialect == "postgresql" else sqlite).insert(LedgerTotal)
    added = {
        name: _TABLE.columns[name] + adding.excluded[name]
        for name in Sums.__dataclass_fields__
        if name not in ("first_seq", "last_seq")
    }
    upsert: Insert = adding.on_conflict_do_update(
        index_elements=list(_TABLE.primary_key), set_=added | {"last_seq": adding.excluded.last_seq}
    )
    return upsert
