"""Plain rows of what a request reads and writes, which the ORM would take twice as long for."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    Connection,
    Dialect,
    Insert,
    Row,
    Table,
    TypeDecorator,
    Update,
    bindparam,
    select,
    update,
)

from shared.kinds import Counts, UnitPrices
from vendor_service.database.tables import Account, ApiKey, Project

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


Owner = TypeVar("Owner", Account, Project, ApiKey)

# A key with its account and its project, if it has one.
_STANDING = (
    select(*(column for kind in (Account, Project, ApiKey) for column in kind.__table__.columns))
    .select_from(ApiKey)
    .join(Account, Account.id == ApiKey.account_id)
    .outerjoin(Project, Project.id == ApiKey.project_id)
    .where(ApiKey.id == bindparam("key_id"))
)


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
    project_id: str | None
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
    created_at: int
    previous_hash: str
    entry_hash: str


class Owners(Generic[Owner]):
    """Accounts, projects or keys that no session keeps: made of rows, and written where they changed."""

    def __init__(self, kind: type[Owner]) -> None:
        self._kind: type[Owner] = kind
        self._table: Table = kind.__table__  # type: ignore[assignment]
        self._names = _names(kind)
        self._values = attrgetter(*self._names)
        self._owners: dict[str, Owner] = {}
        self._as_read: dict[str, tuple[object, ...]] = {}

    def read(self, rows: Iterable[Row[Any]]) -> dict[str, Owner]:
        """One of each row, which has the columns of the table in its order; by id."""
        for row in rows:
            owner = _made(self._kind, iter(row))
            self._owners[owner.id] = owner
            self._as_read[owner.id] = tuple(row)
        return self._owners

    def write(self, connection: Connection) -> None:
        """Have the database hold what was changed since the last time."""
        changes: dict[tuple[str, ...], list[dict[str, object]]] = defaultdict(list)
        for owner_id, owner in self._owners.items():
            before, after = self._as_read[owner_id], self._values(owner)
            if after != before:
                pairs = zip(self._names, before, after, strict=True)
                changed = {name: now for name, was, now in pairs if now != was}
                changes[tuple(changed)].append({"owner_id": owner_id, **changed})
                self._as_read[owner_id] = after
        for names, rows in changes.items():
            _updating(self._table, names).run(connection, rows)


def standing(connection: Connection, key_id: str) -> tuple[Account, ApiKey] | None:
    """A key with its project, and its account, as they stand now; no session keeps them."""
    row = connection.execute(_STANDING, {"key_id": key_id}).one_or_none()
    if row is None:
        return None
    left = iter(row)
    account, project, key = _made(Account, left), _made(Project, left), _made(ApiKey, left)
    key.project = None if key.project_id is None else project
    return account, key


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


@cache  # to put a statement together takes longer than to run it
def _updating(table: Table, names: tuple[str, ...]) -> ManyRows:
    return ManyRows(update(table).where(table.c.id == bindparam("owner_id")), names)
