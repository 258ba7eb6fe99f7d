"""The working set: every row that a transaction of many pieces of work changes, locked and read at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from sqlalchemy import BindParameter, Executable, Table, bindparam, insert, select, union_all, update
from sqlalchemy.orm import Session

from vendor_service.database.rows import ChargeRow, HoldRow, ManyRows, Owners
from vendor_service.database.tables import Account, ApiKey, Hold, Project

_IDS: BindParameter[str] = bindparam("ids", expanding=True)
_NAMES: BindParameter[str] = bindparam("names", expanding=True)
# Built once: to build a statement anew takes longer than to run it.
_ACCOUNTS = select(*Account.__table__.columns).where(Account.id.in_(_IDS)).order_by(Account.id)
_ACCOUNT_IDS = select(Account.id).where(Account.id.in_(_IDS))
_TABLE: Table = Hold.__table__  # type: ignore[assignment]
_HOLD_IDS: BindParameter[str] = bindparam("hold_ids", expanding=True)
_HOLDS_BY_ID = select(*_TABLE.columns).where(Hold.id.in_(_HOLD_IDS))
_LIVE_HOLDS = select(*_TABLE.columns).where(
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
_PLACE = ManyRows(insert(_TABLE), _TABLE.columns.keys())
_CHANGE = ManyRows(update(_TABLE).where(_TABLE.c.id == bindparam("hold_id")), _CHANGING)
_changing = attrgetter(*_CHANGING)
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
        self._as_read: dict[str, tuple[object, ...]] = {}  # by hold, what may become another of it
        self._owners = accounts, projects, keys = Owners(Account), Owners(Project), Owners(ApiKey)
        self._connection = session.connection()
        account_ids = {each.account_id for each in touched}
        self._accounts = accounts.read(self._connection.execute(_LOCKED_ACCOUNTS[wait], {"ids": account_ids}))
        self.busy = set() if wait else self._passed_over(account_ids)
        self._holds = self._read_holds(account_ids, touched)
        self._live = {
            (hold.account_id, hold.idempotency_key): hold
            for hold in self._holds.values()
            if hold.idempotency_key is not None and hold.state != "voided"
        }
        key_ids = {each.key_id for each in touched if each.key_id}
        key_ids |= {hold.key_id for hold in self._holds.values()}
        self._keys = keys.read(self._connection.execute(_LOCKED_KEYS[wait], {"ids": key_ids}))
        if missing := key_ids - self._keys.keys():
            self.busy |= set(self._connection.scalars(_KEY_OWNERS, {"ids": missing}))
        self._find_projects(projects)

    def account(self, account_id: str) -> Account:
        """A locked account."""
        return self._accounts[account_id]

    def key(self, key_id: str) -> ApiKey:
        """The key that an order or a hold names."""
        return self._keys[key_id]

    def hold(self, hold_id: str) -> HoldRow | None:
        """The hold of a request, if there is one."""
        return self._holds.get(hold_id)

    def live_hold(self, account_id: str, idempotency_key: str) -> HoldRow | None:
        """The hold, open or settled, that an idempotency key stands for, if there is one."""
        hold = self._live.get((account_id, idempotency_key))
        return None if hold is None or hold.state == "voided" else hold

    def add(self, hold: HoldRow) -> None:
        """Place a new hold, which the rest of the transaction sees."""
        self._placed.append(hold)
        self._holds[hold.id] = hold
        if hold.idempotency_key is not None:
            self._live[hold.account_id, hold.idempotency_key] = hold

    def charge(self, charge: ChargeRow) -> None:
        """Append a charge to the ledger of its account."""
        self._charges.append(charge)

    def write(self) -> None:
        """Have the database hold what was placed, changed and charged since the last time."""
        connection = self._connection
        changed = [
            {"hold_id": hold.id, **dict(zip(_CHANGING, now, strict=True))}
            for hold in self._holds.values()
            if hold.id in self._as_read and (now := _changing(hold)) != self._as_read[hold.id]
        ]
        if changed:  # first, for a key that stood for one of these may stand for a new one
            _CHANGE.run(connection, changed)
        if self._placed:
            _PLACE.run(connection, [hold.columns() for hold in self._placed])
            self._placed.clear()
        self._as_read |= {hold.id: _changing(hold) for hold in self._holds.values()}
        if self._charges:
            self._write_charges(self.session, self._charges)
            self._charges.clear()
        for each in self._owners:
            each.write(connection)

    def _passed_over(self, account_ids: set[str]) -> set[str]:
        missing = account_ids - self._accounts.keys()
        if not missing:
            return set()
        return set(self._connection.scalars(_ACCOUNT_IDS, {"ids": missing}))

    def _read_holds(self, account_ids: set[str], touched: Sequence[Touched]) -> dict[str, HoldRow]:
        """The holds that are named by their ids, and the live ones that idempotency keys stand for."""
        wanted = {
            "hold_ids": {each.hold_id for each in touched if each.hold_id},
            "ids": account_ids,
            "names": {each.idempotency_key for each in touched if each.idempotency_key is not None},
        }
        statement = _HOLDS.get((bool(wanted["hold_ids"]), bool(wanted["names"])))
        if statement is None:
            return {}
        # One that is found by both is one row.
        holds = {row.id: HoldRow(*row) for row in self._connection.execute(statement, wanted)}
        self._as_read |= {hold.id: _changing(hold) for hold in holds.values()}
        return holds

    def _find_projects(self, projects: Owners[Project]) -> None:
        """Give keys their projects, which change under the locks of their accounts."""
        ids = {key.project_id for key in self._keys.values() if key.project_id is not None}
        found = projects.read(self._connection.execute(_PROJECTS, {"ids": ids})) if ids else {}
        for key in self._keys.values():
            key.project = None if key.project_id is None else found[key.project_id]
