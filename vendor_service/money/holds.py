"""Open holds, as operators see them."""

from datetime import datetime

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from shared.kinds import CountFields, count_fields
from vendor_service.clock import to_datetime
from vendor_service.database.tables import Account, Hold
from vendor_service.errors import UnknownName


class OpenHold(CountFields):
    """The most that a request in flight may cost; it is released at `expires_at` unless its process lives."""

    request_id: str
    account: str
    key_id: str
    project_id: str | None
    model: str
    cost_micros: int
    created_at: datetime
    expires_at: datetime


def count_open(session: Session) -> int:
    """How many holds are neither settled nor voided."""
    return session.scalars(select(func.count()).select_from(Hold).where(Hold.state == "open")).one()


def open_holds(
    session: Session, account: str | None = None, limit: int | None = None, *, after: str = ""
) -> list[OpenHold]:
    """Up to `limit` holds that are neither settled nor voided, of one account or of all, oldest first.

    They are those behind the request `after`, which may be settled by now.

    Raises:
        UnknownName: there is no such request.
    """
    found = select(Hold, Account.name).join(Account, Account.id == Hold.account_id)
    found = found.where(Hold.state == "open")
    if account is not None:
        found = found.where(Account.name == account)
    if after:
        last = session.get(Hold, after)
        if last is None:
            raise UnknownName(f"no request {after!r} is known any more; list anew")
        found = found.where(tuple_(Hold.created_at, Hold.id) > (last.created_at, last.id))
    return [
        OpenHold(
            request_id=hold.id,
            account=name,
            key_id=hold.key_id,
            project_id=hold.project_id or None,
            model=hold.model,
            cost_micros=hold.cost_micros,
            created_at=to_datetime(hold.created_at),
            expires_at=to_datetime(hold.expires_at),
            **count_fields(hold.counts),
        )
        for hold, name in session.execute(found.order_by(Hold.created_at, Hold.id).limit(limit))
    ]
