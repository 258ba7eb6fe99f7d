"""The receivers of events that customers add and manage themselves, of their account."""

from collections.abc import Iterable

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from vendor_service.accounts.accounts import find_account
from vendor_service.acts import webhooks as acts
from vendor_service.acts.act import Act
from vendor_service.clock import DAY
from vendor_service.database.tables import (
    Account,
    AuditEntry,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from vendor_service.errors import APIError, UsageError
from vendor_service.webhooks.endpoints import NewEndpoint, public
from vendor_service.webhooks.events import EventKind

# What one account adds by itself; operators may add more.
_MOST_RECEIVERS = 10
# Receivers and what is logged of them stay for good, so an account does so much about them in a day.
_MOST_A_DAY = 1000


def add(act: Act, account: str, url: str, kinds: Iterable[EventKind]) -> NewEndpoint:
    """Add a receiver of an account's events; none are all of them. It is asked at public addresses alone.

    Raises:
        APIError: `conflict`; the account added this one already, or as many as it may, or did too much about
            them in a day.
        UsageError: the URL cannot be, or is not https.
    """
    owner = find_account(act.session, account, lock=True)
    if not url.startswith("https://"):
        raise UsageError("the address of a receiver begins with https://")
    added = select(WebhookEndpoint).where(
        WebhookEndpoint.account_id == owner.id,
        WebhookEndpoint.added_by == "customer",
        WebhookEndpoint.disabled_at.is_(None),
    )
    live, wanted = act.session.scalars(added).all(), set(kinds)
    if any(each.url == url and set(public(each).events) == wanted for each in live):
        message = "this receiver was added already, and its secret was shown once; give it another one"
        raise APIError(ErrorCode.CONFLICT, message)
    if len(live) >= _MOST_RECEIVERS:
        message = f"this account has {_MOST_RECEIVERS} receivers; disable one that is not needed"
        raise APIError(ErrorCode.CONFLICT, message)
    _check_room(act, owner.id)
    return acts.create(act, url, wanted, account, "customer")


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


def rotate(act: Act, account_id: str, endpoint_id: str, grace_seconds: int) -> NewEndpoint:
    """Give a receiver that this account added another secret; for `grace_seconds` both sign.

    Raises:
        APIError: `not_found`; `conflict`, the receiver is disabled, or the account did too much about its
            receivers in a day.
    """
    find(act.session, account_id, endpoint_id)
    _check_room(act, account_id)
    return acts.rotate(act, endpoint_id, grace_seconds)


def send_again(act: Act, account_id: str, event_id: str, endpoint_id: str) -> None:
    """Send an event of this account, or of all, again to a receiver that was told of it, or is still to be.

    Raises:
        APIError: `not_found`; `conflict`, the receiver is disabled, or the account did too much about its
            receivers in a day.
    """
    find(act.session, account_id, endpoint_id)
    event = act.session.get(WebhookEvent, event_id)
    was_sent = act.session.get(WebhookDelivery, (event_id, endpoint_id)) is not None
    if event is None or event.account_id not in (None, account_id) or not was_sent:
        raise APIError(ErrorCode.NOT_FOUND, "this account has no such delivery", param="event_id")
    _check_room(act, account_id)
    acts.replay(act, event_id, endpoint_id)


def _check_room(act: Act, account_id: str) -> None:
    act.session.get_one(Account, account_id, with_for_update=True)  # nobody counts beside this
    since, disabled_at = act.now - DAY, WebhookEndpoint.disabled_at
    done = (
        select(func.count())
        .select_from(AuditEntry)
        .join(WebhookEndpoint, WebhookEndpoint.id == AuditEntry.subject)
        .where(
            WebhookEndpoint.account_id == account_id,
            WebhookEndpoint.added_by == "customer",
            or_(disabled_at.is_(None), disabled_at > since),  # to others nothing was done since
            AuditEntry.created_at > since,
        )
    )
    if (act.session.scalar(done) or 0) >= _MOST_A_DAY:
        message = (
            f"receivers of this account were added, changed or sent an event again {_MOST_A_DAY} times "
            "in 24 hours; try again tomorrow"
        )
        raise APIError(ErrorCode.CONFLICT, message)
