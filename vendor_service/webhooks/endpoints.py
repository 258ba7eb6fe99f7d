"""Endpoints: who is told, of what, and the secret by which they know that it is this vendor."""

import base64
import secrets
from collections.abc import Iterable
from datetime import datetime
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from vendor_service.clock import SECOND, to_datetime
from vendor_service.database.tables import WebhookDelivery, WebhookEndpoint, WebhookEvent
from vendor_service.errors import OperatorError, UnknownName, UsageError
from vendor_service.webhooks import events
from vendor_service.webhooks.events import ALL_KINDS, EventKind

AddedBy = Literal["operator", "customer"]

_PREFIX = "whsec_"
_SECRET_BYTES = 32
_LONGEST_URL = 2048


class EndpointInfo(BaseModel):
    """A receiver, without its secret; `events` is empty for all, `account_id` is `None` for all accounts."""

    endpoint_id: str
    url: str
    events: list[str]
    account_id: str | None
    added_by: str
    created_at: datetime
    former_until: datetime | None
    disabled_at: datetime | None


class NewEndpoint(BaseModel):
    """A receiver whose secret is new; `secret` is shown this once."""

    endpoint_id: str
    secret: str


def add(
    session: Session,
    url: str,
    kinds: Iterable[EventKind],
    account_id: str | None,
    now: int,
    added_by: AddedBy = "operator",
) -> NewEndpoint:
    """Add a receiver of these kinds of events (none: of all), of one account or of all.

    One that a customer added is asked at public addresses alone, whatever operators allow for their own.

    Raises:
        UsageError: the URL cannot be.
    """
    _check_url(url)
    made = NewEndpoint(endpoint_id=f"wh_{secrets.token_hex(8)}", secret=_new_secret())
    session.add(
        WebhookEndpoint(
            id=made.endpoint_id,
            url=url,
            account_id=account_id,
            added_by=added_by,
            kinds=" ".join(sorted(set(kinds))) or ALL_KINDS,
            secret=made.secret,
            created_at=now,
        )
    )
    return made


def rotate(session: Session, endpoint_id: str, grace_seconds: int, now: int) -> NewEndpoint:
    """Give a receiver another secret; what is sent in the next `grace_seconds` is signed by both.

    Raises:
        UnknownName: there is no such receiver.
        UsageError: the grace is negative or longer than a year.
    """
    if not 0 <= grace_seconds <= 366 * 86_400:
        raise UsageError(f"the grace is between 0 and {366 * 86_400} seconds, not {grace_seconds}")
    row = find(session, endpoint_id, lock=True)
    row.former_secret, row.former_until = row.secret, now + grace_seconds * SECOND
    row.secret = _new_secret()
    return NewEndpoint(endpoint_id=endpoint_id, secret=row.secret)


def disable(session: Session, endpoint_id: str, now: int) -> EndpointInfo:
    """Tell a receiver nothing from now on; raises `UnknownName` if there is none."""
    row = find(session, endpoint_id, lock=True)
    row.disabled_at = row.disabled_at or now
    return public(row)


def find(session: Session, endpoint_id: str, *, lock: bool = False) -> WebhookEndpoint:
    """The receiver of that id, locked if it is to be changed, and then as it is under the lock.

    Raises:
        UnknownName: there is none.
    """
    row = session.get(WebhookEndpoint, endpoint_id, with_for_update=lock or None, populate_existing=lock)
    if row is None:
        raise UnknownName(f"there is no webhook {endpoint_id!r}; see: vendor webhooks list")
    return row


def list_endpoints(session: Session) -> list[EndpointInfo]:
    """All receivers, oldest first."""
    return [
        public(each) for each in session.scalars(select(WebhookEndpoint).order_by(WebhookEndpoint.created_at))
    ]


def replay(session: Session, event_id: str, endpoint_id: str, now: int) -> None:
    """Send an event to a receiver again, or for the first time, with all tries anew.

    Raises:
        UnknownName: there is no such event or receiver.
        OperatorError: the receiver is disabled, or is told of another account.
    """
    event = session.get(WebhookEvent, event_id)
    if event is None:
        raise UnknownName(f"there is no event {event_id!r}; see: vendor webhooks log")
    endpoint = find(session, endpoint_id)
    if endpoint.disabled_at is not None:
        raise OperatorError(
            f"the webhook {endpoint_id} is disabled; make another: vendor webhooks create URL"
        )
    # As `events.emit` chooses.
    if event.account_id is not None and endpoint.account_id not in (None, event.account_id):
        raise OperatorError(
            f"the webhook {endpoint_id} is told of one account alone, and {event_id} is not an event of it"
        )
    fresh = events.delivery(event_id, endpoint_id, now)
    row = session.get(WebhookDelivery, (event_id, endpoint_id), with_for_update=True)
    if row is None:
        session.add(fresh)
    else:
        row.state, row.tries_left, row.next_at = fresh.state, fresh.tries_left, fresh.next_at


def public(row: WebhookEndpoint) -> EndpointInfo:
    """A receiver as operators may see it."""
    return EndpointInfo(
        endpoint_id=row.id,
        url=row.url,
        events=[] if row.kinds == ALL_KINDS else row.kinds.split(),
        account_id=row.account_id,
        added_by=row.added_by,
        created_at=to_datetime(row.created_at),
        former_until=None if row.former_until is None else to_datetime(row.former_until),
        disabled_at=None if row.disabled_at is None else to_datetime(row.disabled_at),
    )


def _new_secret() -> str:
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    printable = url.isascii() and url.isprintable() and " " not in url
    if not whole or not printable or "@" in url or "#" in url or len(url) > _LONGEST_URL:
        raise UsageError("a webhook's URL is https://HOST/PATH, in ASCII and without a user or a fragment")
