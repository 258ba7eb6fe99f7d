"""The receivers of events that customers add and manage themselves, of their account."""

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from vendor_service.accounts.accounts import find_account
from vendor_service.database.tables import WebhookDelivery, WebhookEndpoint, WebhookEvent
from vendor_service.errors import APIError, UsageError
from vendor_service.operators import webhooks as acts
from vendor_service.operators.act import Act
from vendor_service.webhooks.endpoints import NewEndpoint
from vendor_service.webhooks.events import EventKind

# What one account adds by itself; operators may add more.
_MOST_RECEIVERS = 10


def add(act: Act, account: str, url: str, kinds: Iterable[EventKind]) -> NewEndpoint:
    """Add a receiver of an account's events; none are all of them. It is asked at public addresses alone.

    Raises:
        APIError: `conflict`; the account has as many receivers as it may add.
        UsageError: the URL cannot be, or is not https.
    """
    owner = find_account(act.session, account, lock=True)
    if not url.startswith("https://"):
        raise UsageError("the address of a receiver begins with https://")
    added = select(func.count()).where(
        WebhookEndpoint.account_id == owner.id,
        WebhookEndpoint.added_by == "customer",
        WebhookEndpoint.disabled_at.is_(None),
    )
    if (act.session.scalar(added) or 0) >= _MOST_RECEIVERS:
        message = f"this account has {_MOST_RECEIVERS} receivers; disable one that is not needed"
        raise APIError(ErrorCode.CONFLICT, message)
    return acts.create(act, url, kinds, account, "customer")


def find(session: Session, account_id: str, endpoint_id: str) -> WebhookEndpoint:
    """A receiver that this account added and that is not disabled.

    One that an operator added is the vendor's: whoever gave it a secret could sign events as the vendor does.

    Raises:
        APIError: `not_found`; `conflict`, it is disabled.
    """
    row = session.get(WebhookEndpoint, endpoint_id)
    if row is None or row.account_id != account_id or not is_own(row):
        raise APIError(ErrorCode.NOT_FOUND, "this account has no such receiver", param="endpoint_id")
    if row.disabled_at is not None:
        raise APIError(ErrorCode.CONFLICT, f"the receiver {endpoint_id} is disabled", param="endpoint_id")
    return row


def is_own(receiver: WebhookEndpoint) -> bool:
    """Whether a customer added it. The address of one that an operator added is not theirs to know."""
    return receiver.added_by == "customer"


def send_again(act: Act, account_id: str, event_id: str, endpoint_id: str) -> None:
    """Send an event of this account, or of all, again to a receiver that was told of it, or is still to be.

    Raises:
        APIError: `not_found`; `conflict`, the receiver is disabled.
    """
    find(act.session, account_id, endpoint_id)
    event = act.session.get(WebhookEvent, event_id)
    was_sent = act.session.get(WebhookDelivery, (event_id, endpoint_id)) is not None
    if event is None or event.account_id not in (None, account_id) or not was_sent:
        raise APIError(ErrorCode.NOT_FOUND, "this account has no such delivery", param="event_id")
    acts.replay(act, event_id, endpoint_id)
