"""Sessions of the console: who is signed in to an account, and the end of that."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from vendor_service.accounts.accounts import find_account
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.acts.declaration import Own, act, preview, query
from vendor_service.acts.names import AccountName
from vendor_service.audit import actors
from vendor_service.clock import DAY, SECOND, to_datetime
from vendor_service.database.tables import Account, ApiKey, AuditEntry, ConsoleSession, Invitation
from vendor_service.database.view import DEFAULT_ID, View
from vendor_service.errors import APIError, UnknownName
from vendor_service.money.standing import why_ended
from vendor_service.terms import Term

# A session ends that is not used for so long, by its kind.
IDLE_SECONDS = {"customer": 2 * 3600, "operator": 3600}
# The end of each is recorded for good, so the keys of a project end so many in a day.
_MOST_A_DAY = 1000


class SessionInfo(BaseModel):
    """A session: who is signed in (`key:ID` or `invitation:ID`), since when, and when it ends at last."""

    session_id: str
    by: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


def by_id(act: Act, account: str, session_id: str, *, lock: bool = False) -> ConsoleSession:
    """The session that an act is about; customers see those that `list_sessions` lists them.

    Raises:
        UnknownName: an operator names one that is not there, or has ended.
        APIError: `not_found`; a customer does.
    """
    owner = find_account(act.session, account, lock=lock)
    row = act.session.get(ConsoleSession, session_id)
    if row is not None and row.account_id == owner.id and _is_live(act, owner, row):
        return row
    if act.customer is not None:
        raise APIError(ErrorCode.NOT_FOUND, "this account has no such session", param="session_id")
    raise UnknownName(f"{account} has no session {session_id!r}; see: `vendor sessions list {account}`")


@query(
    command="sessions list",
    route="GET /accounts/{account}/sessions",
    own=Own(route="GET /v1/sessions"),
)
def list_sessions(act: Act, account: AccountName) -> list[SessionInfo]:
    """List who is signed in to the console of an account, the newest first.

    A customer's key that belongs to a project lists those who signed in with a key of that.

    Example: vendor sessions list acme
    """
    owner = find_account(act.session, account)
    return [public(each) for each in _live(act, owner)]


@act(
    "session.end",
    command="sessions end",
    route="POST /accounts/{account}/sessions/{session_id}/end",
    own=Own(route="POST /v1/sessions/{session_id}/end", form="/sessions/{session_id}/end", asks=False),
    scope=OperatorScope.ACCOUNTS,
    title="End the session",
    done="The session was ended.",
    of=by_id,
)
def end_session(
    act: Act,
    account: AccountName,
    session_id: Annotated[
        str, Term("As `vendor sessions list ACCOUNT` names it.", label="Session", typed="SESSION_ID")
    ],
) -> SessionInfo:
    """Sign somebody out of the console of an account.

    Whoever still has the key, or another invitation, can sign in again.

    Example: vendor sessions end acme 5d41402abc4b2a76b9719d911017c592
    """
    row = by_id(act, account, session_id, lock=True)
    _check_room(act)
    act.session.execute(delete(ConsoleSession).where(ConsoleSession.id == row.id))
    act.record(account, {"session": row.id, "by": began_by(row)}, None)
    return public(row)


@preview(end_session)
def _of_end(act: Act, account: str, session_id: str) -> Iterator[str]:
    row = by_id(act, account, session_id)
    began = f"{to_datetime(row.created_at):%Y-%m-%d %H:%M} UTC"
    yield f"Who signed in to {account} by {began_by(row)} at {began} is signed out."
    yield "Whoever still has the key, or another invitation, can sign in again."


def holds(session: Session, row: ConsoleSession, now: int) -> bool:
    """Whether a customer is signed in by a session: it holds no longer than its key and that one's secret."""
    if is_over(row, now):
        return False
    key = None if row.key_id is None else session.get(ApiKey, row.key_id)
    return key is None or (not why_ended(key, now) and key.is_secret(row.secret_hash, now))


def is_over(row: ConsoleSession, now: int) -> bool:
    """Whether it is old, or was not used for long."""
    return now >= row.expires_at or now - row.last_used_at > IDLE_SECONDS[row.kind] * SECOND


def end_all(
    session: Session,
    *,
    account_id: str | None = None,
    key_id: str | None = None,
    token_id: str | None = None,
    invitation_id: str | None = None,
) -> Sequence[ConsoleSession]:
    """Sign out every browser of an account, a key, an operator's token or an invitation; the sessions' rows.

    Among them are those that had ended by themselves.
    """
    wanted = {
        "account_id": account_id, "key_id": key_id, "token_id": token_id, "invitation_id": invitation_id,
    }  # fmt: skip
    chosen = [getattr(ConsoleSession, name) == value for name, value in wanted.items() if value is not None]
    assert chosen
    ended = session.scalars(select(ConsoleSession).where(*chosen)).all()
    session.execute(delete(ConsoleSession).where(*chosen))
    return ended


def shut_out(session: Session, account_id: str, now: int) -> None:
    """End all sessions of an account, and withdraw the invitations that are open; for good.

    This transaction has locked the account, as does who signs in or is invited.
    """
    end_all(session, account_id=account_id)
    is_open = (Invitation.used_at.is_(None), Invitation.withdrawn_at.is_(None))
    mine = update(Invitation).where(Invitation.account_id == account_id, *is_open)
    session.execute(mine.values(withdrawn_at=now))


def began_by(row: ConsoleSession) -> str:
    """Who began it, as the audit log names them."""
    return actors.invited(str(row.invitation_id)) if row.key_id is None else actors.customer_key(row.key_id)


def public(row: ConsoleSession) -> SessionInfo:
    """A session as its customer and operators may see it."""
    return SessionInfo(
        session_id=row.id,
        by=began_by(row),
        created_at=to_datetime(row.created_at),
        last_used_at=to_datetime(row.last_used_at),
        expires_at=to_datetime(row.expires_at),
    )


def _live(act: Act, owner: Account) -> list[ConsoleSession]:
    """The sessions of an account that have not ended, in the view of who asks, the newest first."""
    mine = select(ConsoleSession).where(ConsoleSession.account_id == owner.id)
    found = act.session.scalars(mine.order_by(ConsoleSession.created_at.desc(), ConsoleSession.id)).all()
    return [each for each in found if _is_live(act, owner, each)]


def _is_live(act: Act, owner: Account, row: ConsoleSession) -> bool:
    if not holds(act.session, row, act.now):
        return False
    view = act.view(owner)
    return view.is_whole if row.key_id is None else view.has(act.session.get_one(ApiKey, row.key_id))


def _check_room(act: Act) -> None:
    """Raises an `APIError`, `conflict`, where customers of a project ended too many sessions in a day."""
    if act.customer is None:
        return
    key = act.customer.key
    beside = View(act.customer.account_id, DEFAULT_ID) if key is None else View.of_project(key)
    theirs = select(actors.customer_key("") + ApiKey.id).where(beside.rows(ApiKey))
    mine = (
        AuditEntry.subject == act.customer.name,
        AuditEntry.action == act.action,
        AuditEntry.created_at > act.now - DAY,
        or_(AuditEntry.actor == act.actor, AuditEntry.actor.in_(theirs)),
    )
    if (act.session.scalar(select(func.count()).where(*mine)) or 0) >= _MOST_A_DAY:
        message = f"this was done {_MOST_A_DAY} times in 24 hours; try again tomorrow"
        raise APIError(ErrorCode.CONFLICT, message)
