"""Receivers of events: added by operators, and by customers for their own account; and what they were sent.

A receiver knows by its secret that a request comes from this vendor.
"""

import base64
import ipaddress
import secrets
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel
from sqlalchemy import ColumnElement, and_, func, or_, select, tuple_
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from vendor_service.accounts.accounts import find_account
from vendor_service.accounts.keys import LONGEST_GRACE_SECONDS
from vendor_service.acts.act import Act, Customer, OperatorScope
from vendor_service.acts.declaration import Own, act, preview, query
from vendor_service.acts.names import ReceiversGraceSeconds, ends_a_secret
from vendor_service.clock import DAY, SECOND, optional_datetime, to_datetime
from vendor_service.database.tables import (
    Account,
    AuditEntry,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from vendor_service.errors import APIError, OperatorError, UnknownName, UsageError
from vendor_service.terms import Term
from vendor_service.webhooks import events
from vendor_service.webhooks.events import ALL_KINDS, EventKind

_PREFIX = "whsec_"
_SECRET_BYTES = 32
_LONGEST_URL = 2048
# What one account adds by itself; operators may add more.
_MOST_RECEIVERS = 10
# Receivers and what is logged of them stay for good, so an account does so much about them in a day.
_MOST_A_DAY = 1000
_KEEP = "Keep it: {endpoint_id} is signed by it, and it is not shown again."

EndpointId = Annotated[
    str, Term("As `vendor webhooks list` names it.", label="Receiver", typed="ENDPOINT_ID")
]
Url = Annotated[
    str, Term("Where events are sent.", label="Address", typed="URL", form="address", longest=_LONGEST_URL)
]
Kinds = Annotated[
    Collection[EventKind],
    Term(
        "An event to send.", label="Events to send", typed="--event", wire="events", form="event", none="all"
    ),
]


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
    url: str
    secret: str


class DeliveryInfo(BaseModel):
    """An event and how its delivery to a receiver goes: the last try, if there was one, and the next."""

    delivery_id: str
    event_id: str
    event: str
    created_at: datetime
    endpoint_id: str
    state: str
    attempts: int
    last_status: int | None
    last_error: str | None
    next_at: datetime | None


def _hint(made: NewEndpoint) -> str | None:
    host = urlsplit(made.url).hostname or ""
    try:
        is_public = ipaddress.ip_address(host).is_global
    except ValueError:
        is_public = host != "localhost" and not host.endswith((".localhost", ".local", ".internal"))
    if is_public:
        return None
    return (
        f"{host} is on no public network: it is asked only if VENDOR_WEBHOOK_PRIVATE_NETWORKS of the vendor "
        f"has it. Try it with: `vendor webhooks test {made.endpoint_id}`, and look at: `vendor webhooks log`"
    )


def by_id(act: Act, endpoint_id: str, *, lock: bool = False) -> WebhookEndpoint:
    """The receiver that an act is about, locked if it is to be changed, and then as it is under the lock.

    Customers act on one that they added and that is not disabled. One that an operator added is the vendor's:
    whoever gave it a secret could sign events as the vendor does.

    Raises:
        UnknownName: an operator names one that is not there.
        APIError: `not_found` or `conflict`; a customer has no such receiver, or it is disabled.
    """
    if act.customer is not None:
        _check_own(act, act.customer, endpoint_id, lock=lock)
    row = act.session.get(WebhookEndpoint, endpoint_id, with_for_update=lock or None, populate_existing=lock)
    if row is None:
        raise UnknownName(f"there is no webhook {endpoint_id!r}; see: `vendor webhooks list`")
    return row


@act(
    "webhook.create",
    command="webhooks create",
    route="POST /webhooks",
    status=201,
    own=Own(form="/events/receivers/add", asks=False),
    scope=OperatorScope.ALL,
    title="Add a receiver",
    done="Events are sent to {url}.",
    reveals="secret",
    keep=_KEEP,
    hint=_hint,
)
def create(
    act: Act,
    url: Url,
    kinds: Kinds = (),
    account: Annotated[
        str | None,
        Term("Only events of this account.", label="Account", typed="--account", none="all accounts"),
    ] = None,
) -> NewEndpoint:
    """Have events sent to a URL; the secret that signs them is shown this once.

    Example: vendor webhooks create https://crm.example.com/hooks --event invoice.finalized
    """  # fmt: skip
    chosen, owner = sorted(set(kinds)), None
    if act.customer is not None:
        owner = _check_may_add(act, act.customer, url, chosen)
    elif account is not None:
        owner = find_account(act.session, account)
    _check_url(url)
    made = NewEndpoint(endpoint_id=f"wh_{secrets.token_hex(8)}", url=url, secret=_new_secret())
    act.session.add(
        WebhookEndpoint(
            id=made.endpoint_id,
            url=url,
            account_id=None if owner is None else owner.id,
            added_by="operator" if act.customer is None else "customer",
            kinds=" ".join(chosen) or ALL_KINDS,
            secret=made.secret,
            created_at=act.now,
        )
    )
    of = None if owner is None else owner.name
    act.record(made.endpoint_id, None, {"url": url, "events": chosen, "account": of})
    return made


@act(
    "webhook.rotate",
    command="webhooks rotate",
    route="POST /webhooks/{endpoint_id}/rotate",
    own=Own(form="/events/receivers/{endpoint_id}/rotate"),
    scope=OperatorScope.ALL,
    title="Make a new secret",
    done="The receiver {endpoint_id} has a new secret.",
    of=by_id,
    state=lambda receiver: receiver.secret,
    applies=lambda receiver: receiver.disabled_at is None,
    asks_if=ends_a_secret,
    word="endpoint_id",
    reveals="secret",
    keep=_KEEP,
)
def rotate(act: Act, endpoint_id: EndpointId, grace_seconds: ReceiversGraceSeconds = 0) -> NewEndpoint:
    """Give a receiver another secret, shown this once; during the grace both secrets sign.

    Example: vendor webhooks rotate wh_0f3c7a91d2b45e68 --grace 86400
    """
    if not 0 <= grace_seconds <= LONGEST_GRACE_SECONDS:
        raise UsageError(f"the grace is between 0 and {LONGEST_GRACE_SECONDS} seconds, not {grace_seconds}")
    row = by_id(act, endpoint_id, lock=True)
    _check_room(act)
    row.former_secret, row.former_until = row.secret, act.now + grace_seconds * SECOND
    row.secret = _new_secret()
    act.record(endpoint_id, None, {"former_until": row.former_until})
    return NewEndpoint(endpoint_id=endpoint_id, url=row.url, secret=row.secret)


@preview(rotate)
def _of_rotate(act: Act, endpoint_id: str, grace_seconds: int = 0) -> Iterator[str]:
    row = by_id(act, endpoint_id)
    yield f"Requests to {row.url} are signed with a new secret, which is shown once."
    if grace_seconds:
        yield f"For {grace_seconds:,} seconds they are also signed with the present secret."
    if (row.former_until or 0) > act.now:
        yield "The secret before the present one signs no more."


@act(
    "webhook.disable",
    command="webhooks disable",
    route="POST /webhooks/{endpoint_id}/disable",
    own=Own(form="/events/receivers/{endpoint_id}/disable"),
    scope=OperatorScope.ALL,
    title="Disable the receiver",
    done="Nothing is sent to the receiver from now on.",
    of=by_id,
    applies=lambda receiver: receiver.disabled_at is None,
    dangerous=True,
)
def disable(act: Act, endpoint_id: EndpointId) -> EndpointInfo:
    """Send a receiver nothing from now on, for good. Its log stays.

    Example: vendor webhooks disable wh_0f3c7a91d2b45e68
    """
    row = by_id(act, endpoint_id, lock=True)
    if row.disabled_at is None:
        row.disabled_at = act.now
        act.record(endpoint_id, None, {"url": row.url})
    return public(row)


@preview(disable)
def _of_disable(act: Act, endpoint_id: str) -> Iterator[str]:
    row = by_id(act, endpoint_id)
    if row.disabled_at is None:
        yield f"Nothing is sent to {row.url} from now on, for good. Add it again to send it events."


@act(
    "webhook.replay",
    command="webhooks replay",
    route="POST /webhooks/{endpoint_id}/replay/{event_id}",
    own=Own(form="/events/receivers/{endpoint_id}/send/{event_id}", asks=False),
    scope=OperatorScope.ALL,
    title="Send the event again",
    done="The event is sent again, under the same id.",
)
def replay(
    act: Act,
    event_id: Annotated[str, Term("As `vendor webhooks log` names it.", label="Event", typed="EVENT_ID")],
    endpoint_id: EndpointId,
) -> DeliveryInfo:
    """Send an event to a receiver again, or for the first time, under the same id and with all tries anew.

    Example: vendor webhooks replay evt_5d41402abc4b2a76b9719d911017c592 wh_0f3c7a91d2b45e68
    """
    endpoint, event = by_id(act, endpoint_id), act.session.get(WebhookEvent, event_id)
    row = act.session.get(WebhookDelivery, (event_id, endpoint_id), with_for_update=True)
    if act.customer is not None:
        _check_was_sent(act.customer, event, row)
        _check_room(act)
    if event is None:
        raise UnknownName(f"there is no event {event_id!r}; see: `vendor webhooks log`")
    if endpoint.disabled_at is not None:
        raise OperatorError(
            f"the webhook {endpoint_id} is disabled; make another: `vendor webhooks create URL`"
        )
    # As `events.emit` chooses.
    if event.account_id is not None and endpoint.account_id not in (None, event.account_id):
        raise OperatorError(
            f"the webhook {endpoint_id} gets events of one account alone, and {event_id} is not one of them"
        )
    fresh = events.delivery(event_id, endpoint_id, act.now)
    if row is None:
        act.session.add(fresh)
    else:
        row.state, row.tries_left, row.next_at = fresh.state, fresh.tries_left, fresh.next_at
    act.record(endpoint_id, None, {"event_id": event_id})
    return next(
        each for each in _deliveries(act.session, event_id=event_id) if each.endpoint_id == endpoint_id
    )


@act(
    "webhook.test",
    command="webhooks test",
    route="POST /webhooks/{endpoint_id}/test",
    scope=OperatorScope.ALL,
    title="Send a test event",
    done="A test event is sent to the receiver; its log says what became of it.",
)
def send_test(act: Act, endpoint_id: EndpointId) -> DeliveryInfo:
    """Send a receiver an event of the kind `webhook.test`, which tells nothing.

    Example: vendor webhooks test wh_0f3c7a91d2b45e68
    """
    endpoint = by_id(act, endpoint_id)
    if endpoint.disabled_at is not None:
        raise OperatorError(
            f"the webhook {endpoint_id} is disabled; make another: `vendor webhooks create URL`"
        )
    event_id = events.emit_test(act.session, endpoint, act.now)
    act.session.flush()
    act.record(endpoint_id, None, {"event_id": event_id})
    (sent,) = _deliveries(act.session, event_id=event_id)
    return sent


@query(command="webhooks list", route="GET /webhooks")
def list_receivers(act: Act) -> list[EndpointInfo]:
    """List all webhooks, without their secrets.

    Example: vendor webhooks list
    """
    found = act.session.scalars(select(WebhookEndpoint).order_by(WebhookEndpoint.created_at))
    return [public(each) for each in found]


@query(command="webhooks log", route="GET /webhooks/deliveries", command_limit=100)
def deliveries(
    act: Act,
    endpoint_id: Annotated[
        str | None, Term("Only deliveries to this webhook.", typed="--endpoint", none="to all")
    ] = None,
    after: Annotated[str, Term("Only deliveries older than this one.", typed="--after")] = "",
    limit: Annotated[int, Term("How many deliveries to list.", typed="--limit", least=1, most=1000)] = 100,
) -> list[DeliveryInfo]:
    """List the last deliveries, the newest first: what became of the last try, and when the next one is.

    Example: vendor webhooks log --endpoint wh_0f3c7a91d2b45e68
    """
    return _deliveries(act.session, endpoint_id=endpoint_id, after=after, limit=limit)


def is_own(receiver: WebhookEndpoint) -> bool:
    """Whether a customer added it. The address of one that an operator added is not theirs to know."""
    return receiver.added_by == "customer"


def public(row: WebhookEndpoint) -> EndpointInfo:
    """A receiver as operators may see it."""
    return EndpointInfo(
        endpoint_id=row.id,
        url=row.url,
        events=[] if row.kinds == ALL_KINDS else row.kinds.split(),
        account_id=row.account_id,
        added_by=row.added_by,
        created_at=to_datetime(row.created_at),
        former_until=optional_datetime(row.former_until),
        disabled_at=optional_datetime(row.disabled_at),
    )


def _deliveries(
    session: Session,
    *,
    endpoint_id: str | None = None,
    event_id: str | None = None,
    after: str = "",
    limit: int = 100,
) -> list[DeliveryInfo]:
    found = select(WebhookDelivery, WebhookEvent).join(
        WebhookEvent, WebhookEvent.id == WebhookDelivery.event_id
    )
    if endpoint_id is not None:
        found = found.where(WebhookDelivery.endpoint_id == endpoint_id)
    if event_id is not None:
        found = found.where(WebhookDelivery.event_id == event_id)
    if after:
        found = found.where(_is_behind(session, after))
    order = (WebhookEvent.created_at.desc(), WebhookEvent.id, WebhookDelivery.endpoint_id)
    rows = session.execute(found.order_by(*order).limit(limit))
    return [_delivery(session, delivery, event) for delivery, event in rows.all()]


def _is_behind(session: Session, delivery_id: str) -> ColumnElement[bool]:
    event_id, _, endpoint_id = delivery_id.partition(":")
    event = session.get(WebhookEvent, event_id)
    if event is None:
        raise UnknownName(f"there is no delivery {delivery_id!r}; see: `vendor webhooks log`")
    beside = tuple_(WebhookEvent.id, WebhookDelivery.endpoint_id) > (event_id, endpoint_id)
    return or_(
        WebhookEvent.created_at < event.created_at,
        and_(WebhookEvent.created_at == event.created_at, beside),
    )


def _delivery(session: Session, delivery: WebhookDelivery, event: WebhookEvent) -> DeliveryInfo:
    last = last_attempt(session, delivery)
    return DeliveryInfo(
        delivery_id=f"{event.id}:{delivery.endpoint_id}",
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


def last_attempt(session: Session, delivery: WebhookDelivery) -> WebhookAttempt | None:
    """The last try of a delivery, if there was one."""
    tries = select(WebhookAttempt).where(
        WebhookAttempt.event_id == delivery.event_id, WebhookAttempt.endpoint_id == delivery.endpoint_id
    )
    return session.scalars(tries.order_by(WebhookAttempt.number.desc()).limit(1)).first()


def _check_own(act: Act, customer: Customer, endpoint_id: str, *, lock: bool) -> None:
    customer.require_whole("receivers are")
    if lock:
        act.session.get_one(Account, customer.account_id, with_for_update=True)  # one at a time
    row = act.session.get(WebhookEndpoint, endpoint_id)
    if row is None or row.account_id != customer.account_id or not is_own(row):
        raise APIError(ErrorCode.NOT_FOUND, "this account has no such receiver", param="endpoint_id")
    if row.disabled_at is not None:
        raise APIError(ErrorCode.CONFLICT, f"the receiver {endpoint_id} is disabled", param="endpoint_id")


def _check_may_add(act: Act, customer: Customer, url: str, kinds: Collection[EventKind]) -> Account:
    """The account, if it may have this receiver. Those of customers are asked at public addresses alone.

    Raises:
        APIError: `insufficient_scope`; the key sees a project alone. `conflict`; the account added this one
            already, or as many as it may, or did too much about them in a day.
        UsageError: the URL is not https.
    """
    customer.require_whole("receivers are")
    owner = find_account(act.session, customer.name, lock=True)
    if not url.startswith("https://"):
        raise UsageError("the address of a receiver begins with https://")
    added = select(WebhookEndpoint).where(
        WebhookEndpoint.account_id == owner.id,
        WebhookEndpoint.added_by == "customer",
        WebhookEndpoint.disabled_at.is_(None),
    )
    live = act.session.scalars(added).all()
    if any(each.url == url and set(public(each).events) == set(kinds) for each in live):
        message = "this receiver was added already, and its secret was shown once; give it another one"
        raise APIError(ErrorCode.CONFLICT, message)
    if len(live) >= _MOST_RECEIVERS:
        message = f"this account has {_MOST_RECEIVERS} receivers; disable one that is not needed"
        raise APIError(ErrorCode.CONFLICT, message)
    _check_room(act)
    return owner


def _check_was_sent(customer: Customer, event: WebhookEvent | None, row: WebhookDelivery | None) -> None:
    if event is None or row is None or event.account_id not in (None, customer.account_id):
        raise APIError(ErrorCode.NOT_FOUND, "this account has no such delivery", param="event_id")


def _check_room(act: Act) -> None:
    """Raises an `APIError`, `conflict`, where a customer did too much about receivers in a day."""
    if act.customer is None:
        return
    account_id = act.customer.account_id
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


def _new_secret() -> str:
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _check_url(url: str) -> None:
    """Make sure that a URL can be asked; raises `UsageError`."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    printable = url.isascii() and url.isprintable() and " " not in url
    if not whole or not printable or "@" in url or "#" in url or len(url) > _LONGEST_URL:
        raise UsageError("a webhook's URL is https://HOST/PATH, in ASCII and without a user or a fragment")
