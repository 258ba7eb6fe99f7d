"""Operators' tokens, and what was answered to requests that are done once."""

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from vendor_service.database.tables.base import Base, Secret


class OperatorToken(Secret, Base):
    """A token by which an operator asks `/admin`; `scopes` are separated by spaces."""

    __tablename__ = "operator_tokens"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[str]
    created_at: Mapped[int]
    revoked_at: Mapped[int | None]
    last_used_at: Mapped[int | None]


class AnsweredRequest(Base):
    """The answer to what is done once, by its idempotency key; never deleted.

    It is an operator's request that moves money, by the id of the token, or a form of the console, by that of
    the token or of the customer's session.
    """

    __tablename__ = "answered_requests"

    # No foreign key: to check it would lock the token's row after the end of the audit log.
    asker_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(64))
    content: Mapped[str] = mapped_column(Text)
    created_at: Mapped[int]
