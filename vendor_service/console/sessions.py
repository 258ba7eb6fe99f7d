"""Sessions: who is signed in, in which browser, and until when. The books have them, so they can be ended."""

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from vendor_service.acts.sessions import is_over
from vendor_service.clock import SECOND
from vendor_service.console.seal import Seal
from vendor_service.database.tables import ConsoleSession

# How old the note of a session's last use may be.
_NOTED_EVERY = 60 * SECOND
_ID_DIGITS = 32  # of the hash of what is in the cookie
_MOST_OF_ONE = 50  # sessions that one key, invitation or token may have at a time


@dataclass(frozen=True)
class SessionKind:
    """Whose sessions: how the cookie is called, and how long one lasts; see also `IDLE_SECONDS`."""

    name: str
    cookie: str
    path: str
    lifetime_seconds: int
    # "strict" keeps the cookie from whoever comes by a link from elsewhere, "lax" from what such a link does.
    same_site: str


# `__Host-`: browsers take such a cookie only over TLS (or from localhost), and for this host alone. Both
# kinds may live on one host, since cookies do not tell ports apart.
CUSTOMERS = SessionKind("customer", "__Host-tuition-console", "/console", 12 * 3600, "lax")
OPERATORS = SessionKind("operator", "__Host-tuition-operator", "/operator", 8 * 3600, "strict")


def begin(
    session: Session,
    seal: Seal,
    kind: SessionKind,
    now: int,
    *,
    secret_hash: str,
    account_id: str | None = None,
    key_id: str | None = None,
    invitation_id: str | None = None,
    token_id: str | None = None,
) -> str:
    """Sign somebody in; what the browser's cookie has to have. See `ConsoleSession`.

    Sessions that are over are forgotten with that, and the oldest of who has too many. Nobody signs out
    whoever signed in by something else.
    """
    session.execute(delete(ConsoleSession).where(ConsoleSession.expires_at <= now))
    token = secrets.token_urlsafe(32)
    row = ConsoleSession(
        id=_id(token),
        kind=kind.name,
        account_id=account_id,
        key_id=key_id,
        invitation_id=invitation_id,
        token_id=token_id,
        secret_hash=secret_hash,
        created_at=now,
        last_used_at=now,
        expires_at=now + kind.lifetime_seconds * SECOND,
    )
    mine = (
        ConsoleSession.account_id == account_id,
        ConsoleSession.key_id == key_id,
        ConsoleSession.invitation_id == invitation_id,
        ConsoleSession.token_id == token_id,
    )
    older = (
        select(ConsoleSession.id).where(*mine).order_by(ConsoleSession.created_at.desc(), ConsoleSession.id)
    )
    for id_ in session.scalars(older.offset(_MOST_OF_ONE - 1)).all():
        session.execute(delete(ConsoleSession).where(ConsoleSession.id == id_))
    session.add(row)
    return seal.close(kind.name, token)


def find(
    session: Session, seal: Seal, kind: SessionKind, cookie: str, now: int
) -> tuple[ConsoleSession, str] | None:
    """The session of a cookie and its CSRF token; `None` for one that is over or never was."""
    token = seal.open(kind.name, cookie)
    if token is None:
        return None
    row = session.get(ConsoleSession, _id(token))
    if row is None or row.kind != kind.name or is_over(row, now):
        return None
    return row, seal.tag(f"{kind.name} csrf", token)


def is_to_be_noted(row: ConsoleSession, now: int) -> bool:
    """Whether the note of its last use is old."""
    return now - row.last_used_at > _NOTED_EVERY


def end(session: Session, id_: str) -> None:
    """Sign one browser out."""
    session.execute(delete(ConsoleSession).where(ConsoleSession.id == id_))


def _id(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:_ID_DIGITS]
