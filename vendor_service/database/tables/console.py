"""Sessions of the console, and invitations to it."""

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from vendor_service.database.tables.base import Base


class ConsoleSession(Base):
    """Somebody who is signed in to the console, until `expires_at`; whoever signs out has no row any more.

    The id is a hash of what is in the browser's cookie. `kind` is `customer` or `operator`. A customer's is
    of an account, and was begun by a key or by an invitation, an operator's by a token; `secret_hash` is that
    of the key's or the token's secret then, so a secret that is good no longer ends what was begun by it.
    """

    __tablename__ = "console_sessions"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    account_id: Mapped[str | None] = mapped_column(String(32), index=True)
    key_id: Mapped[str | None] = mapped_column(String(32))
    invitation_id: Mapped[str | None] = mapped_column(String(32))
    token_id: Mapped[str | None] = mapped_column(String(32))
    secret_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int]
    last_used_at: Mapped[int]
    expires_at: Mapped[int] = mapped_column(index=True)


class Invitation(Base):
    """A link by which somebody may sign in to the console of an account, once, until `expires_at`.

    One that was withdrawn signs nobody in any more, and the sessions that it began have ended.
    """

    __tablename__ = "invitations"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int]
    expires_at: Mapped[int]
    used_at: Mapped[int | None]
    withdrawn_at: Mapped[int | None]
