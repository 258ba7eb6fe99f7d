"""Acts on webhooks, and the log of deliveries as operators see it."""

from collections.abc import Iterable
from datetime import datetime

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from vendor_service.accounts.accounts import find_account
from vendor_service.acts.act import Act
from vendor_service.clock import to_datetime
from vendor_service.database.tables import WebhookAttempt, WebhookDelivery, WebhookEvent
from vendor_service.webhooks import endpoints
from vendor_service.webhooks.endpoints import AddedBy, EndpointInfo, NewEndpoint
from vendor_service.webhooks.events import EventKind


class DeliveryInfo(BaseModel):
    """An event and how its delivery to a receiver goes: the last try, if there was one, and the next."""

    event_id: str
    event: str
    created_at: datetime
    endpoint_id: str
    state: str
    attempts: int
    last_status: int | None
    last_error: str | None
    next_at: datetime | None


def create(
    act: Act,
    url: str,
    kinds: Iterable[EventKind] = (),
    account: str | None = None,
    added_by: AddedBy = "operator",
) -> NewEndpoint:
    """Add a receiver, of one account's events or of all; raises what `endpoints.add` does."""
    owner = None if account is None else find_account(act.session, account)
    chosen = sorted(set(kinds))
    owner_id = None if owner is None else owner.id
    made = endpoints.add(act.session, url, chosen, owner_id, act.now, added_by)
    act.record("webhook.create", made.endpoint_id, None, {"url": url, "events": chosen, "account": account})
    return made


def rotate(act: Act, endpoint_id: str, grace_seconds: int) -> NewEndpoint:
    """Give a receiver another secret; raises what `endpoints.rotate` does."""
    made = endpoints.rotate(act.session, endpoint_id, grace_seconds, act.now)
    after = {"former_until": endpoints.find(act.session, endpoint_id).former_until}
    act.record("webhook.rotate", endpoint_id, None, after)
    return made


def disable(act: Act, endpoint_id: str) -> EndpointInfo:
    """Tell a receiver nothing from now on."""
    is_news = endpoints.find(act.session, endpoint_id, lock=True).disabled_at is None
    info = endpoints.disable(act.session, endpoint_id, act.now)
    if is_news:
        act.record("webhook.disable", endpoint_id, None, {"url": info.url})
    return info


def replay(act: Act, event_id: str, endpoint_id: str) -> DeliveryInfo:
    """Send an event to a receiver again; raises what `endpoints.replay` does."""
    endpoints.replay(act.session, event_id, endpoint_id, act.now)
    act.record("webhook.replay", endpoint_id, None, {"event_id": event_id})
    return next(
        each for each in deliveries(act.session, event_id=event_id) if each.endpoint_id == endpoint_id
    )


def deliveries(
    session: Session, *, endpoint_id: str | None = None, event_id: str | None = None, limit: int = 100
) -> list[DeliveryInfo]:
    """The last deliveries, the newest events first; of one receiver or of one event, if it is named."""
    found = select(WebhookDelivery, WebhookEvent).join(
        WebhookEvent, WebhookEvent.id == WebhookDelivery.event_id
    )
    if endpoint_id is not None:
        found = found.where(WebhookDelivery.endpoint_id == endpoint_id)
    if event_id is not None:
        found = found.where(WebhookDelivery.event_id == event_id)
    rows = session.execute(found.order_by(WebhookEvent.created_at.desc(), WebhookEvent.id).limit(limit))
    return [_public(session, delivery, event) for delivery, event in rows.all()]


def _public(session: Session, delivery: WebhookDelivery, event: WebhookEvent) -> DeliveryInfo:
    tries = select(WebhookAttempt).where(
        WebhookAttempt.event_id == event.id, WebhookAttempt.endpoint_id == delivery.endpoint_id
    )
    last = session.scalars(tries.order_by(WebhookAttempt.number.desc()).limit(1)).first()
    return DeliveryInfo(
        event_id=event.id,
        event=event.kind,
        created_at=to_datetime(event.created_at),
        endpoint_id=delivery.endpoint_id,
        state=delivery.state,
        attempts=delivery.attempts,
        last_status=None if last is None else last.status,
        last_error=None if last is None else last.error,
        next_at=to_datetime(delivery.next_at) if delivery.state == "pending" else None,
    )
