"""Events: the outbox, written in the transaction of what happened, so that both are there or neither."""

import json
import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from vendor_service.clock import to_datetime
from vendor_service.database.tables import Account, WebhookDelivery, WebhookEndpoint, WebhookEvent
from vendor_service.database.view import DEFAULT_ID, NO_PROJECT

# After each failure the next try comes so many seconds later, as Standard Webhooks advises: over three days.
BACKOFF_SECONDS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
ALL_KINDS = "*"
TEST = "webhook.test"


class EventKind(StrEnum):
    """The kinds of events that are sent."""

    QUOTA = "quota.threshold_reached"
    SPEND_LIMIT = "spend_limit.threshold_reached"
    CREDIT = "credit.threshold_reached"
    INVOICE_FINALIZED = "invoice.finalized"
    CREDIT_NOTE_ISSUED = "credit_note.issued"
    KEY_ROTATED = "key.rotated"
    BATCH_COMPLETED = "batch.completed"
    MODEL_DEPRECATED = "model.deprecated"


def emit(
    session: Session,
    kind: EventKind,
    account: Account | None,
    data: Mapping[str, Any],
    now: int,
    project_id: str | None = NO_PROJECT,
) -> None:
    """Write an event and its receivers; it is sent once this transaction has committed.

    An event of no account concerns all of them, and every receiver is told. Without a project it concerns
    the whole account; that of the default project is `None` or empty.
    """
    event = WebhookEvent(
        id=f"evt_{secrets.token_hex(16)}",
        kind=kind,
        account_id=None if account is None else account.id,
        project_id=project_id or DEFAULT_ID,
        content=_content(kind, account, data, now),
        created_at=now,
    )
    session.add(event)
    wanted = select(WebhookEndpoint).where(WebhookEndpoint.disabled_at.is_(None))
    whose = WebhookEndpoint.account_id
    if account is not None:
        wanted = wanted.where(or_(whose.is_(None), whose == account.id))
    for endpoint in session.scalars(wanted):
        if endpoint.kinds == ALL_KINDS or kind in endpoint.kinds.split():
            session.add(delivery(event.id, endpoint.id, now))


def emit_test(session: Session, endpoint: WebhookEndpoint, now: int) -> str:
    """Write an event for one receiver, whichever it wants, which tells nothing; its id."""
    event = WebhookEvent(
        id=f"evt_{secrets.token_hex(16)}",
        kind=TEST,
        account_id=endpoint.account_id,
        project_id=DEFAULT_ID,
        content=_content(TEST, None, {}, now),
        created_at=now,
    )
    session.add(event)
    session.add(delivery(event.id, endpoint.id, now))
    return event.id


def delivery(event_id: str, endpoint_id: str, now: int) -> WebhookDelivery:
    """A delivery that is due."""
    return WebhookDelivery(
        event_id=event_id,
        endpoint_id=endpoint_id,
        state="pending",
        attempts=0,
        tries_left=1 + len(BACKOFF_SECONDS),
        next_at=now,
        leased_until=0,
    )


def _content(kind: str, account: Account | None, data: Mapping[str, Any], now: int) -> str:
    whose = {} if account is None else {"account": account.name}
    moment = to_datetime(now).isoformat().replace("+00:00", "Z")
    return json.dumps({"type": kind, "timestamp": moment, "data": {**whose, **data}}, separators=(",", ":"))
