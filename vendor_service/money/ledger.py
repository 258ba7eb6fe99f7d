"""The ledger: one chain of entries an account, appended to and never changed, and its running totals.

The totals are sums by hour and by all that a question about money groups by. They are written in the
transaction of the entries that they sum up, one statement for all that it appends.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Insert, Row, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from shared.billing import SEALED, Entry
from shared.kinds import NOTHING, count_fields, price_fields
from vendor_service.clock import HOUR, to_datetime
from vendor_service.database.tables import BULK, Account, LedgerEntry, LedgerTotal, row_hash
from vendor_service.database.view import DEFAULT_ID, View
from vendor_service.database.working_set import ChargeRow, HoldRow, ManyRows
from vendor_service.errors import OperatorError

_PAGE = 500
_TOTALS = LedgerTotal.__table__
_APPEND = ManyRows(insert(LedgerEntry), LedgerEntry.__table__.columns.keys())
_HASHED = tuple(
    column.key
    for column in LedgerEntry.__table__.columns
    if column.key not in ("counts", "prices", "entry_hash")
)


def charge(account: Account, hold: HoldRow, now: int) -> ChargeRow:
    """Make the next entry for an answered request; `write_charges` appends it with others.

    Here as below, this transaction must have locked the account.
    """
    entry = ChargeRow(
        account_id=account.id,
        seq=0,
        kind="charge",
        amount_micros=-hold.cost_micros,
        counts=hold.counts,
        prices=hold.prices,
        model=hold.model,
        model_fingerprint=hold.model_fingerprint,
        key_id=hold.key_id,
        project_id=hold.project_id or None,
        hold_id=hold.id,
        corrects_seq=None,
        reason=None,
        reference=None,
        batch=hold.server == BULK,
        created_at=0,
        previous_hash="",
        entry_hash="",
    )
    _chain(account, entry, now)
    return entry


def write_charges(session: Session, charges: Sequence[ChargeRow]) -> None:
    """Append charges, whose holds the database has, and count them in the totals."""
    _APPEND.run(session.connection(), [charge.columns() for charge in charges])
    _count(session, charges)


def append(
    session: Session, account: Account, kind: str, amount_micros: int, now: int, **said: str | int | None
) -> LedgerEntry:
    """Append an entry that sells nothing.

    Raises:
        OperatorError: the account's books go on to a date ahead of the clock's.
    """
    _check_dates(account, now)
    entry = LedgerEntry(
        account_id=account.id, kind=kind, amount_micros=amount_micros, counts=NOTHING, prices=NOTHING, **said
    )
    _chain(account, entry, now)
    session.add(entry)
    session.flush()
    _count(session, [entry])
    return entry


def page(session: Session, view: View, after: int, limit: int) -> list[Entry]:
    """Up to `limit` of an account's entries behind `after`, oldest first; those out of view are sealed.

    So who sees a part of the chain can check that it is one, and that it is not rewritten later.
    """
    return [public(each) if view.has(each) else _sealed(each) for each in _page(session, view, after, limit)]


def entries(session: Session, account_id: str) -> Iterator[LedgerEntry]:
    """All of an account's entries, oldest first, fetched as they are asked for."""
    after = 0
    while found := _page(session, View.whole(account_id), after, _PAGE):
        yield from found
        after = found[-1].seq


def rows(session: Session, account_id: str) -> Iterator[Row[Any]]:
    """The columns of all of an account's entries, oldest first: several times faster than `entries`."""
    columns = LedgerEntry.__table__.columns
    after = 0
    while True:
        mine = (columns.account_id == account_id, columns.seq > after)
        found = session.execute(select(*columns).where(*mine).order_by(columns.seq).limit(_PAGE)).all()
        if not found:
            return
        yield from found
        after = found[-1].seq


def head(session: Session, account_id: str) -> LedgerEntry | None:
    """An account's last entry; `None` where there is none yet."""
    return session.get(LedgerEntry, (account_id, session.get_one(Account, account_id).ledger_seq))


def public(entry: LedgerEntry) -> Entry:
    """An entry as its customer and its operator may see it."""
    return Entry(
        account_id=entry.account_id,
        seq=entry.seq,
        kind=entry.kind,
        amount_micros=entry.amount_micros,
        model=entry.model,
        model_fingerprint=entry.model_fingerprint,
        key_id=entry.key_id,
        project_id=entry.project_id,
        request_id=entry.hold_id,
        corrects_seq=entry.corrects_seq,
        reason=entry.reason,
        reference=entry.reference,
        batch=bool(entry.batch),
        created_at=to_datetime(entry.created_at),
        previous_hash=entry.previous_hash,
        entry_hash=entry.entry_hash,
        **count_fields(entry.counts),
        **price_fields(entry.prices),
    )


def _sealed(entry: LedgerEntry) -> Entry:
    """An entry as a link of the chain, and nothing else."""
    return Entry(
        seq=entry.seq,
        kind=SEALED,
        amount_micros=0,
        model=None,
        model_fingerprint=None,
        key_id=None,
        request_id=None,
        corrects_seq=None,
        reason=None,
        created_at=None,
        previous_hash=entry.previous_hash,
        entry_hash=entry.entry_hash,
        **count_fields(NOTHING),
        **price_fields(NOTHING),
    )


def _page(session: Session, view: View, after: int, limit: int) -> Sequence[LedgerEntry]:
    mine = (LedgerEntry.account_id == view.account_id, LedgerEntry.seq > after)
    return session.scalars(select(LedgerEntry).where(*mine).order_by(LedgerEntry.seq).limit(limit)).all()


def entry_hash(entry: LedgerEntry | ChargeRow | Row[Any]) -> str:
    """The hash that an entry has to carry, over everything else that its customer sees."""
    return row_hash(entry, _HASHED, count_fields(entry.counts) | price_fields(entry.prices))


class TotalKey(NamedTuple):
    """The key of a total in its table, beside the account: what its entries have in common."""

    hour: int
    kind: str
    project_id: str
    key_id: str
    model: str
    model_fingerprint: str
    sold: str
    unit_micros: int
    batch: bool


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


def add_to_totals(totals: Totals, entry: Any) -> None:  # noqa: ANN401 - an entry, or a row of its columns
    """Count one more entry: in a total for each kind of what it sold, or in one of its own."""
    sold = [(kind, entry.prices[kind], number) for kind, number in sorted(entry.counts.items()) if number]
    for place, (kind, unit_micros, quantity) in enumerate(sold or [("", 0, 0)]):
        key = TotalKey(
            hour=entry.created_at // HOUR,
            kind=entry.kind,
            project_id=entry.project_id or DEFAULT_ID,
            key_id=entry.key_id or "",
            model=entry.model or "",
            model_fingerprint=entry.model_fingerprint or "",
            sold=kind,
            unit_micros=unit_micros,
            batch=bool(entry.batch),
        )
        sums = totals.setdefault(key, Sums(first_seq=entry.seq))
        sums.entries += place == 0
        sums.requests += quantity > 0
        sums.quantity += quantity
        sums.amount_micros += -quantity * unit_micros if sold else entry.amount_micros
        sums.last_seq = entry.seq


def totals_of_hour(session: Session, account_id: str, hour: int) -> Totals:
    """The totals of one hour, as they are written."""
    mine = (LedgerTotal.account_id == account_id, LedgerTotal.hour == hour)
    totals = {}
    for row in session.execute(select(*_TOTALS.columns).where(*mine)).mappings():
        key = TotalKey(**{name: row[name] for name in TotalKey._fields})
        totals[key] = Sums(**{name: row[name] for name in Sums.__dataclass_fields__})
    return totals


def _check_dates(account: Account, now: int) -> None:
    if account.is_ahead(now):
        until = to_datetime(account.instant(now))
        raise OperatorError(
            f"the books of {account.name} go on to {until:%Y-%m-%d %H:%M} UTC, ahead of this clock; "
            f"set the clock right, or if it is right run: `vendor accounts repair {account.name}`"
        )


def _chain(account: Account, entry: LedgerEntry | ChargeRow, now: int) -> None:
    """Make it the last entry of an account's chain."""
    entry.seq = account.ledger_seq + 1
    entry.created_at = account.instant(now)
    entry.previous_hash = account.ledger_hash
    entry.entry_hash = entry_hash(entry)
    account.ledger_seq = entry.seq
    account.ledger_hash = entry.entry_hash
    account.ledger_at = entry.created_at
    if account.credit_micros is not None:
        account.credit_micros += entry.amount_micros
        if entry.kind == "top_up":
            account.credit_base_micros = account.credit_micros


def _count(session: Session, entries: Iterable[Any]) -> None:
    """Count entries that this transaction appends in the totals; those of an account in their order."""
    by_account: dict[str, Totals] = {}
    for entry in entries:
        add_to_totals(by_account.setdefault(entry.account_id, {}), entry)
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
    added = {name: _TOTALS.columns[name] + adding.excluded[name] for name in summed}
    upsert: Insert = adding.on_conflict_do_update(
        index_elements=list(_TOTALS.primary_key), set_=added | {"last_seq": adding.excluded.last_seq}
    )
    return upsert
