"""Receivers of events, events, and their deliveries."""

from sqlalchemy import Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from vendor_service.database.tables.base import Base


class WebhookEndpoint(Base):
    """A receiver of events: of all accounts, or of one; of all kinds (`*`) or of those named.

    It has its secrets in clear, for each delivery is signed by them; the former one is used as well until
    `former_until`. Only one that an operator added may be on a private network.
    """

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    url: Mapped[str] = mapped_column(String(2048))
    account_id: Mapped[str | None] = mapped_column(String(32))
    added_by: Mapped[str] = mapped_column(String(16), default="operator", server_default="operator")
    kinds: Mapped[str]
    secret: Mapped[str] = mapped_column(String(64))
    former_secret: Mapped[str | None] = mapped_column(String(64))
    former_until: Mapped[int | None]
    created_at: Mapped[int]
    disabled_at: Mapped[int | None]


class WebhookEvent(Base):
    """Something that happened, with the body that every receiver is sent of it.

    `project_id` is that of what it happened to: empty for the default project, `*` for the whole account.
    """

    __tablename__ = "webhook_events"
    __table_args__ = (Index("ix_webhook_events_account_id", "account_id", "created_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(64))
    account_id: Mapped[str | None] = mapped_column(String(32))
    project_id: Mapped[str] = mapped_column(String(32))
    content: Mapped[str] = mapped_column(Text)
    created_at: Mapped[int] = mapped_column(index=True)


class WebhookDelivery(Base):
    """An event that a receiver is to be sent: `pending` until it is `delivered` or has `failed` for good.

    A process that sends it holds the `lease` until `leased_until`.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(
            "ix_webhook_deliveries_pending",
            "next_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
    )

    event_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    tries_left: Mapped[int]
    next_at: Mapped[int]
    lease: Mapped[str | None] = mapped_column(String(32))
    leased_until: Mapped[int]


class WebhookAttempt(Base):
    """One try to deliver an event: what the receiver answered, or why there was no answer."""

    __tablename__ = "webhook_attempts"

    event_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[int]
    milliseconds: Mapped[int]
    status: Mapped[int | None]
    error: Mapped[str | None]


class ModelNotice(Base):
    """The dates of a model's end that receivers of events were last told."""

    __tablename__ = "model_notices"

    model: Mapped[str] = mapped_column(primary_key=True)
    deprecated_at: Mapped[int]
    sunset_at: Mapped[int | None]
