"""The working set: every row that a transaction of many pieces of work changes, locked and read at once.

The rows are plain ones, which the ORM would take twice as long for.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    BindParameter,
    Connection,
    Dialect,
    Executable,
    Insert,
    Row,
    Table,
    TypeDecorator,
    Update,
    bindparam,
    insert,
    select,
    union_all,
    update,
)
from sqlalchemy.orm import Session

from shared.kinds import Counts, UnitPrices
from vendor_service.database.tables import Account, ApiKey, Base, Hold, Project

Parameters = Mapping[str, object]


class ManyRows:
    """An INSERT or UPDATE that the driver is given with all rows as they are.

    It is put together once a dialect. SQLAlchemy would look at each value of each row as well, which takes
    it longer than the database; so this is for columns of plain numbers and texts, and of the tables' own
    types. Nothing is filled in that a row leaves out.
    """

    def __init__(self, statement: Insert | Update, columns: Sequence[str]) -> None:
        """Of a `statement` without values, which sets these `columns`."""
        self._statement = statement
        self._columns = columns
        self._ready: dict[str, tuple[str, Callable[[Parameters], Any]]] = {}  # by dialect

    def run(self, connection: Connection, rows: Sequence[Parameters]) -> None:
        """Run it for each row, given by the names of its columns and of the statement's own parameters."""
        dialect = connection.dialect
        if dialect.name not in self._ready:
            self._ready[dialect.name] = self._compiled(dialect)
        text, arranged = self._ready[dialect.name]
        connection.exec_driver_sql(text, [arranged(row) for row in rows])

    def _compiled(self, dialect: Dialect) -> tuple[str, Callable[[Parameters], Any]]:
        """Its text, and how the driver wants a row of parameters: in their order, or by name."""
        compiled: Any = self._statement.compile(dialect=dialect, column_keys=list(self._columns))
        in_order: Sequence[str] | None = compiled.positiontup
        arranged: Callable[[Parameters], Any] = itemgetter(*in_order) if in_order else dict
        columns = {name: self._statement.table.c[name].type for name in self._columns}
        own = {name: kind for name, kind in columns.items() if isinstance(kind, TypeDecorator)}

        def written(row: Parameters) -> Any:  # noqa: ANN401 - as the driver has it
            return arranged(
                {**row, **{name: kind.process_bind_param(row[name], dialect) for name, kind in own.items()}}
            )

        return str(compiled), written if own else arranged


class _Row:
    __slots__: tuple[str, ...] = ()

    def columns(self) -> dict[str, Any]:
        """Its columns, by name."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class HoldRow(_Row):
    """A row of the table of `Hold`, with the columns in its order."""

    id: str
    account_id: str
    key_id: str
    project_id: str
    server: str | None
    state: str
    model: str
    model_fingerprint: str
    counts: Counts
    prices: UnitPrices
    cost_micros: int
    idempotency_key: str | None
    body_hash: str
    created_at: int
    expires_at: int
    replays: int = 0
    refunded_at: int | None = None


@dataclass(slots=True)
class ChargeRow(_Row):
    """A row of the table of `LedgerEntry` that is a charge, with the columns in its order."""

    account_id: str
    seq: int
    kind: str
    amount_micros: int
    counts: Counts
    prices: UnitPrices
    model: str
    model_fingerprint: str
    key_id: str
    project_id: str | None
    hold_id: str
    corrects_seq: None
    reason: None
    reference: None
    batch: bool
    created_at: int
    previous_hash: str
    entry_hash: str


Kind = TypeVar("Kind")
Owner = TypeVar("Owner", Account, Project, ApiKey)


class _Kept(Generic[Kind]):
    """Rows that no session keeps, by id: read or placed, and written where some of their columns changed."""

    def __init__(self, table: Table, make: Callable[[Iterator[Any]], Kind], changing: Sequence[str]) -> None:
        self._table = table
        self._make = make
        self._names = tuple(changing)
        self._values = attrgetter(*changing)
        self._as_read: dict[str, tuple[object, ...]] = {}
        self.rows: dict[str, Kind] = {}

    def read(self, found: Iterable[Row[Any]]) -> None:
        """Keep each row that was found, which has the columns of the table in its order."""
        for each in found:
            row = self.rows[each.id] = self._make(iter(each))
            self._as_read[each.id] = self._values(row)

    def write(self, connection: Connection) -> None:
        """Have the database hold what was changed since the last time."""
        changes: dict[tuple[str, ...], list[dict[str, object]]] = defaultdict(list)
        for row_id, row in self.rows.items():
            before, after = self._as_read.get(row_id), self._values(row)
            if before is not None and after != before:
                pairs = zip(self._names, before, after, strict=True)
                changed = {name: now for name, was, now in pairs if now != was}
                changes[tuple(changed)].append({"row_id": row_id, **changed})
            self._as_read[row_id] = after
        for names, rows in changes.items():
            _updating(self._table, names).run(connection, rows)


def _owners(kind: type[Owner]) -> _Kept[Owner]:
    return _Kept(_table_of(kind), lambda values: _made(kind, values), _names(kind))


def _made(kind: type[Owner], values: Iterator[object]) -> Owner:
    """Make an owner of the next values, as the ORM loads one."""
    owner: Owner = object.__new__(_plain(kind))
    names = _names(kind)
    for name, value in zip(names, islice(values, len(names)), strict=True):
        setattr(owner, name, value)
    return owner


@cache
def _plain(kind: type[Owner]) -> type[Owner]:
    """The same kind with plain attributes: the ORM's take several times as long to read and to set."""
    attributes = [attribute.key for attribute in kind.__mapper__.attrs]
    return type(kind.__name__, (kind,), {"__abstract__": True, "__slots__": attributes})


@cache
def _names(kind: type[Owner]) -> tuple[str, ...]:
    return tuple(kind.__table__.columns.keys())


def _table_of(kind: type[Base]) -> Table:
    return kind.__table__  # type: ignore[return-value]


@cache  # to put a statement together takes longer than to run it
def _updating(table: Table, names: tuple[str, ...]) -> ManyRows:
    return ManyRows(update(table).where(table.c.id == bindparam("row_id")), names)


# A key with its account and its project, if it has one.
_STANDING = (
    select(*(column for kind in (Account, Project, ApiKey) for column in kind.__table__.columns))
    .select_from(ApiKey)
    .join(Account, Account.id == ApiKey.account_id)
    .outerjoin(Project, Project.id == ApiKey.project_id)
    .where(ApiKey.id == bindparam("key_id"))
)


def standing(connection: Connection, key_id: str) -> tuple[Account, ApiKey] | None:
    """A key with its project, and its account, as they stand now; no session keeps them."""
    row = connection.execute(_STANDING, {"key_id": key_id}).one_or_none()
    if row is None:
        return None
    left = iter(row)
    account, project, key = _made(Account, left), _made(Project, left), _made(ApiKey, left)
    key.project = None if key.project_id is None else project
    return account, key


_IDS: BindParameter[str] = bindparam("ids", expanding=True)
_NAMES: BindParameter[str] = bindparam("names", expanding=True)
# All are built once: to build a statement anew takes longer than to run it.
_ACCOUNTS = select(*Account.__table__.columns).where(Account.id.in_(_IDS)).order_by(Account.id)
_ACCOUNT_IDS = select(Account.id).where(Account.id.in_(_IDS))
_HOLD_IDS: BindParameter[str] = bindparam("hold_ids", expanding=True)
_HOLDS_BY_ID = select(*Hold.__table__.columns).where(Hold.id.in_(_HOLD_IDS))
_LIVE_HOLDS = select(*Hold.__table__.columns).where(
    Hold.account_id.in_(_IDS), Hold.idempotency_key.in_(_NAMES), Hold.state != "voided"
)
# By whether some are looked for by their ids, and by idempotency keys.
_HOLDS: dict[tuple[bool, bool], Executable] = {
    (True, False): _HOLDS_BY_ID,
    (False, True): _LIVE_HOLDS,
    (True, True): union_all(_HOLDS_BY_ID, _LIVE_HOLDS),
}
# What becomes another of a hold that was placed.
_CHANGING = ("state", "counts", "cost_micros", "replays")
_PLACE = ManyRows(insert(Hold), Hold.__table__.columns.keys())
# Keys change without their account's lock, when they are rotated or their use is noted.
_KEYS = select(*ApiKey.__table__.columns).where(ApiKey.id.in_(_IDS)).order_by(ApiKey.id)
_KEY_OWNERS = select(ApiKey.account_id).where(ApiKey.id.in_(_IDS))
_PROJECTS = select(*Project.__table__.columns).where(Project.id.in_(_IDS))
# By whether a transaction waits for rows that another has locked.
_LOCKED_ACCOUNTS = {wait: _ACCOUNTS.with_for_update(skip_locked=not wait) for wait in (True, False)}
_LOCKED_KEYS = {wait: _KEYS.with_for_update(key_share=True, skip_locked=not wait) for wait in (True, False)}


@dataclass(frozen=True)
class Touched:
    """The rows that a piece of work needs: an account, and of it a hold, a key and an idempotency key's hold.

    The key of the hold comes along with it.
    """

    account_id: str
    hold_id: str | None = None
    key_id: str | None = None
    idempotency_key: str | None = None


def lock_account(session: Session, account_id: str) -> bool:
    """Hold an account until this transaction ends, once no other does; whether none did."""
    connection, ids = session.connection(), {"ids": [account_id]}
    if connection.execute(_LOCKED_ACCOUNTS[False], ids).first():
        return True
    connection.execute(_LOCKED_ACCOUNTS[True], ids)
    return False


def _write_no_charges(_: Session, charges: Sequence[ChargeRow]) -> None:
    assert not charges


class WorkingSet:
    """The rows that pieces of work share, in three or four statements however many pieces there are.

    The session keeps none of them: the database has what became of them once this is told to `write`, at the
    end of the transaction and before anything that refers to them. `write_charges` writes charges.

    The accounts are locked first, and in one order, so that two processes never wait for accounts that the
    other has locked; all else is read under those locks, and so stays as it was read. FOR UPDATE is
    PostgreSQL's: SQLite ignores it, since its whole transaction is the lock. Unless it is to `wait`, accounts
    of which another transaction has locked a row are `busy`, and no work may be done on them.
    """

    def __init__(
        self,
        session: Session,
        touched: Sequence[Touched],
        *,
        wait: bool = True,
        write_charges: Callable[[Session, Sequence[ChargeRow]], None] = _write_no_charges,
    ) -> None:
        self.session = session
        self._write_charges = write_charges
        self._charges: list[ChargeRow] = []
        self._placed: list[HoldRow] = []
        self._accounts, self._projects, self._keys = _owners(Account), _owners(Project), _owners(ApiKey)
        self._holds = _Kept(_table_of(Hold), lambda values: HoldRow(*values), _CHANGING)
        self._connection = session.connection()
        account_ids = {each.account_id for each in touched}
        self._accounts.read(self._connection.execute(_LOCKED_ACCOUNTS[wait], {"ids": account_ids}))
        self.busy = set() if wait else self._passed_over(account_ids)
        self._read_holds(account_ids, touched)
        self._live = {
            (hold.account_id, hold.project_id, hold.idempotency_key): hold
            for hold in self._holds.rows.values()
            if hold.idempotency_key is not None and hold.state != "voided"
        }
        key_ids = {each.key_id for each in touched if each.key_id}
        key_ids |= {hold.key_id for hold in self._holds.rows.values()}
        self._keys.read(self._connection.execute(_LOCKED_KEYS[wait], {"ids": key_ids}))
        if missing := key_ids - self._keys.rows.keys():
            self.busy |= set(self._connection.scalars(_KEY_OWNERS, {"ids": missing}))
        self._find_projects()

    def account(self, account_id: str) -> Account:
        """A locked account."""
        return self._accounts.rows[account_id]

    def key(self, key_id: str) -> ApiKey:
        """The key that an order or a hold names."""
        return self._keys.rows[key_id]

    def hold(self, hold_id: str) -> HoldRow | None:
        """The hold of a request, if there is one."""
        return self._holds.rows.get(hold_id)

    def live_hold(self, account_id: str, project_id: str, idempotency_key: str) -> HoldRow | None:
        """The hold, open or settled, that an idempotency key of a project stands for, if there is one."""
        hold = self._live.get((account_id, project_id, idempotency_key))
        return None if hold is None or hold.state == "voided" else hold

    def add(self, hold: HoldRow) -> None:
        """Place a new hold, which the rest of the transaction sees."""
        self._placed.append(hold)
        self._holds.rows[hold.id] = hold
        if hold.idempotency_key is not None:
            self._live[hold.account_id, hold.project_id, hold.idempotency_key] = hold

    def charge(self, charge: ChargeRow) -> None:
        """Append a charge to the ledger of its account."""
        self._charges.append(charge)

    def write(self) -> None:
        """Have the database hold what was placed, changed and charged since the last time."""
        connection = self._connection
        self._holds.write(connection)  # first, for a key that stood for one of these may stand for a new one
        if self._placed:
            _PLACE.run(connection, [hold.columns() for hold in self._placed])
            self._placed.clear()
        if self._charges:
            self._write_charges(self.session, self._charges)
            self._charges.clear()
        self._accounts.write(connection)
        self._projects.write(connection)
        self._keys.write(connection)

    def _passed_over(self, account_ids: set[str]) -> set[str]:
        missing = account_ids - self._accounts.rows.keys()
        return set(self._connection.scalars(_ACCOUNT_IDS, {"ids": missing})) if missing else set()

    def _read_holds(self, account_ids: set[str], touched: Sequence[Touched]) -> None:
        """Read the holds that are named by their ids, and the live ones that idempotency keys stand for."""
        wanted = {
            "hold_ids": {each.hold_id for each in touched if each.hold_id},
            "ids": account_ids,
            "names": {each.idempotency_key for each in touched if each.idempotency_key is not None},
        }
        statement = _HOLDS.get((bool(wanted["hold_ids"]), bool(wanted["names"])))
        if statement is not None:  # one that is found by both is one row
            self._holds.read(self._connection.execute(statement, wanted))

    def _find_projects(self) -> None:
        """Give keys their projects, which change under the locks of their accounts."""
        keys = self._keys.rows.values()
        ids = {key.project_id for key in keys if key.project_id is not None}
        if ids:
            self._projects.read(self._connection.execute(_PROJECTS, {"ids": ids}))
        for key in keys:
            key.project = None if key.project_id is None else self._projects.rows[key.project_id]
