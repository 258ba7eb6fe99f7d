"""Plain rows of the two transactions of a request, which the ORM's objects would take twice as long for."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Row, Table, Update, bindparam, update

from vendor_service.database.tables import Account, ApiKey, Project

Owner = TypeVar("Owner", Account, Project, ApiKey)


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
    images: int
    texts: int
    image_micros: int
    text_micros: int
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
    images: int
    texts: int
    image_micros: int
    text_micros: int
    model: str
    model_fingerprint: str
    key_id: str
    project_id: str | None
    hold_id: str
    corrects_seq: None
    reason: None
    reference: None
    redates_seq: None
    created_at: int
    previous_hash: str
    entry_hash: str


class Owners(Generic[Owner]):
    """Accounts, projects or keys that no session keeps: made of rows, and written where they changed."""

    def __init__(self, kind: type[Owner]) -> None:
        self._kind: type[Owner] = kind
        self._table: Table = kind.__table__  # type: ignore[assignment]
        self._names = self._table.columns.keys()
        self._values = itemgetter(*self._names)
        self._owners: dict[str, Owner] = {}
        self._as_read: dict[str, tuple[object, ...]] = {}

    def read(self, rows: Iterable[Row[Any]]) -> dict[str, Owner]:
        """One of each row, which has the columns of the table in its order; by id."""
        for row in rows:
            owner = self._kind()
            vars(owner).update(zip(self._names, row, strict=True))  # as the ORM does when it loads one
            self._owners[owner.id] = owner
            self._as_read[owner.id] = tuple(row)
        return self._owners

    def write(self, connection: Connection) -> None:
        """Have the database hold what was changed since the last time."""
        changes: dict[tuple[str, ...], list[dict[str, object]]] = defaultdict(list)
        for owner_id, owner in self._owners.items():
            before, after = self._as_read[owner_id], self._values(vars(owner))
            if after != before:
                pairs = zip(self._names, before, after, strict=True)
                changed = {name: now for name, was, now in pairs if now != was}
                changes[tuple(changed)].append({"owner_id": owner_id, **changed})
                self._as_read[owner_id] = after
        for names, rows in changes.items():
            connection.execute(_changing(self._table, names), rows)


@cache  # to put a statement together takes longer than to run it
def _changing(table: Table, names: tuple[str, ...]) -> Update:
    return update(table).where(table.c.id == bindparam("owner_id")).values(dict.fromkeys(names))
