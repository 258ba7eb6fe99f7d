"""The working set: every row that a transaction of many pieces of work changes, locked and read at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from vendor_service.database.tables import Account, ApiKey, Hold


@dataclass(frozen=True)
class Touched:
    """What a piece of work looks at: an account, and of it a hold, a key and what an idempotency key holds.

    The key of the hold comes along with it.
    """

    account_id: str
    hold_id: str | None = None
    key_id: str | None = None
    idempotency_key: str | None = None


class WorkingSet:
    """The rows that pieces of work share, in three or four statements however many pieces there are.

    The accounts are locked first, and in one order, so that two processes never wait for accounts that the
    other has locked; all else is read under those locks, and so stays as it was read. FOR UPDATE is
    PostgreSQL's: SQLite ignores it, since its whole transaction is the lock. Unless it is to `wait`, accounts
    of which another transaction has locked a row are `busy`, and no work may be done on them.
    """

    def __init__(self, session: Session, touched: Sequence[Touched], *, wait: bool = True) -> None:
        self.session = session
        account_ids = {each.account_id for each in touched}
        locked = select(Account).where(Account.id.in_(account_ids)).order_by(Account.id)
        locked = locked.with_for_update(skip_locked=not wait)
        self._accounts = {account.id: account for account in session.scalars(locked)}
        self.busy = set() if wait else self._passed_over(account_ids)
        self._holds = self._read_holds({each.hold_id for each in touched if each.hold_id})
        self._live = self._read_live(account_ids, touched)
        key_ids = {each.key_id for each in touched if each.key_id}
        key_ids |= {hold.key_id for hold in (*self._holds.values(), *self._live.values())}
        self._keys = self._read_keys(key_ids, wait=wait)

    def account(self, account_id: str) -> Account:
        """A locked account."""
        return self._accounts[account_id]

    def key(self, key_id: str) -> ApiKey:
        """The key that an order or a hold names."""
        return self._keys[key_id]

    def hold(self, hold_id: str) -> Hold | None:
        """The hold of a request, if there is one."""
        return self._holds.get(hold_id)

    def live_hold(self, account_id: str, idempotency_key: str) -> Hold | None:
        """The hold, open or settled, that an idempotency key stands for, if there is one."""
        hold = self._live.get((account_id, idempotency_key))
        return None if hold is None or hold.state == "voided" else hold

    def add(self, hold: Hold) -> None:
        """Place a new hold, which the rest of the transaction sees."""
        self.session.add(hold)
        self._holds[hold.id] = hold
        if hold.idempotency_key is not None:
            self._live[hold.account_id, hold.idempotency_key] = hold

    def _passed_over(self, account_ids: set[str]) -> set[str]:
        missing = account_ids - self._accounts.keys()
        if not missing:
            return set()
        return set(self.session.scalars(select(Account.id).where(Account.id.in_(missing))))

    def _read_holds(self, hold_ids: set[str]) -> dict[str, Hold]:
        if not hold_ids:
            return {}
        return {hold.id: hold for hold in self.session.scalars(select(Hold).where(Hold.id.in_(hold_ids)))}

    def _read_keys(self, key_ids: set[str], *, wait: bool) -> dict[str, ApiKey]:
        # Keys change without their account's lock, when they are rotated or their use is noted.
        named = select(ApiKey).where(ApiKey.id.in_(key_ids)).order_by(ApiKey.id)
        locked = named.with_for_update(key_share=True, skip_locked=not wait)
        keys = {key.id: key for key in self.session.scalars(locked)}
        if missing := key_ids - keys.keys():
            owners = select(ApiKey.account_id).where(ApiKey.id.in_(missing))
            self.busy |= set(self.session.scalars(owners))
        return keys

    def _read_live(self, account_ids: set[str], touched: Sequence[Touched]) -> dict[tuple[str, str], Hold]:
        names = {each.idempotency_key for each in touched if each.idempotency_key is not None}
        if not names:
            return {}
        live = select(Hold).where(
            Hold.account_id.in_(account_ids), Hold.idempotency_key.in_(names), Hold.state != "voided"
        )
        return {(hold.account_id, str(hold.idempotency_key)): hold for hold in self.session.scalars(live)}
