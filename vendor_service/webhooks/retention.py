"""Retention: events are kept for a while after they were delivered, or their delivery has failed."""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from vendor_service.clock import DAY
from vendor_service.database.tables import WebhookAttempt, WebhookDelivery, WebhookEvent

KEPT_DAYS = 90
# So many are deleted in one transaction, which holds up others for a moment only.
_AT_ONCE = 500


def forget(session: Session, now: int) -> int:
    """Delete some events of long ago, with what became of them; how many.

    One that is still to be delivered stays.
    """
    pending = select(WebhookDelivery.event_id).where(WebhookDelivery.state == "pending")
    old = (WebhookEvent.created_at < now - KEPT_DAYS * DAY, WebhookEvent.id.not_in(pending))
    ids = list(session.scalars(select(WebhookEvent.id).where(*old).limit(_AT_ONCE)))
    if ids:
        session.execute(delete(WebhookAttempt).where(WebhookAttempt.event_id.in_(ids)))
        session.execute(delete(WebhookDelivery).where(WebhookDelivery.event_id.in_(ids)))
        session.execute(delete(WebhookEvent).where(WebhookEvent.id.in_(ids)))
    return len(ids)
