"""The dispatcher: takes deliveries that are due, sends each, and notes what became of it."""

import base64
import hashlib
import hmac
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select

from vendor_service.clock import SECOND, Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import WebhookAttempt, WebhookDelivery, WebhookEndpoint, WebhookEvent
from vendor_service.errors import APIError
from vendor_service.webhooks import retention
from vendor_service.webhooks.events import BACKOFF_SECONDS
from vendor_service.webhooks.sending import Network, Outcome, send

# Longer than a try may take, its look-up of a name included.
_LEASE = 90 * SECOND
# How many are sent at once, and how many of them to one receiver, who may be slow.
_AT_ONCE, _AT_ONE_RECEIVER = 16, 4
# How often events of long ago are looked for.
_FORGET_SECONDS = 3600.0
_GONE = 410  # by which a receiver says that it wants no more

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Parcel:
    """A delivery that this process holds the lease of."""

    event_id: str
    endpoint_id: str
    number: int
    url: str
    body: bytes
    secrets: tuple[str, ...] = field(repr=False)
    may_be_private: bool


class Dispatcher:
    """Delivers events in threads of its own, so that nothing waits for a receiver.

    Receivers that operators added may be on the `private` networks as well.

    Several processes on one database share the work: who sends something holds a lease on it, which outlasts
    the try. What a process that died had in hand is sent again when its lease is over, under the same id.
    """

    def __init__(self, database: Database, clock: Clock, private: Sequence[Network] = ()) -> None:
        self._database = database
        self._clock = clock
        self._private = private
        self._lease = secrets.token_hex(16)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self, every_seconds: float) -> None:
        """Deliver what is due now and then, until `stop`."""
        self._every_seconds = every_seconds
        self._thread.start()

    def stop(self) -> None:
        """Take nothing more. What is being sent is not waited for: its lease runs out."""
        self._stopping.set()
        self._thread.join(timeout=1.0)

    def once(self) -> int:
        """Send what is due, up to a few at once; how many."""
        parcels = self._take()
        senders = [threading.Thread(target=self._deliver, args=(each,), daemon=True) for each in parcels]
        for each in senders:
            each.start()
        for each in senders:
            each.join()
        return len(parcels)

    def forget(self) -> None:
        """Delete the events of long ago."""
        forgotten = True
        while forgotten and not self._stopping.is_set():
            with self._database.write() as session:
                forgotten = bool(retention.forget(session, self._clock()))

    def _run(self) -> None:
        forget_at = 0.0
        while not self._stopping.is_set():
            try:
                if time.monotonic() >= forget_at:
                    forget_at = time.monotonic() + _FORGET_SECONDS
                    self.forget()
                sent = self.once()
            except APIError as error:
                _log.warning("webhooks were put off: %s", error)
                sent = 0
            except Exception:
                if not self._stopping.is_set():
                    _log.exception("delivering webhooks failed; it will be tried again")
                sent = 0
            if not sent:
                self._stopping.wait(self._every_seconds)

    def _take(self) -> list[_Parcel]:
        now = self._clock()
        due = (
            select(WebhookDelivery)
            .where(
                WebhookDelivery.state == "pending",
                WebhookDelivery.next_at <= now,
                WebhookDelivery.leased_until <= now,
            )
            .order_by(WebhookDelivery.next_at)
            .limit(8 * _AT_ONCE)
        )
        with self._database.read() as session:  # most of the time there is nothing, and nothing to lock
            if session.scalars(due.limit(1)).first() is None:
                return []
        parcels: list[_Parcel] = []
        of_receiver: Counter[str] = Counter()
        with self._database.write() as session:
            for row in session.scalars(due.with_for_update(skip_locked=True)):
                of_receiver[row.endpoint_id] += 1
                if len(parcels) == _AT_ONCE or of_receiver[row.endpoint_id] > _AT_ONE_RECEIVER:
                    continue
                endpoint = session.get_one(WebhookEndpoint, row.endpoint_id)
                if endpoint.disabled_at is not None:
                    row.state = "failed"
                    continue
                row.attempts += 1
                row.lease, row.leased_until = self._lease, now + _LEASE
                event = session.get_one(WebhookEvent, row.event_id)
                signs = [endpoint.secret]
                if endpoint.former_secret is not None and now < (endpoint.former_until or 0):
                    signs.append(endpoint.former_secret)
                parcels.append(
                    _Parcel(
                        row.event_id,
                        row.endpoint_id,
                        row.attempts,
                        endpoint.url,
                        event.content.encode(),
                        tuple(signs),
                        endpoint.added_by == "operator",
                    )
                )
        return parcels

    def _deliver(self, parcel: _Parcel) -> None:
        at = self._clock()
        private = self._private if parcel.may_be_private else None
        outcome = send(parcel.url, parcel.body, signed(parcel.event_id, at, parcel), private)
        try:
            self._note(parcel, at, outcome)
        except APIError as error:  # it is sent again when the lease is over
            _log.warning("what became of the webhook %s could not be noted: %s", parcel.event_id, error)

    def _note(self, parcel: _Parcel, at: int, outcome: Outcome) -> None:
        now = self._clock()
        with self._database.write() as session:
            row = session.get_one(
                WebhookDelivery, (parcel.event_id, parcel.endpoint_id), with_for_update=True
            )
            session.add(
                WebhookAttempt(
                    event_id=parcel.event_id,
                    endpoint_id=parcel.endpoint_id,
                    number=parcel.number,
                    at=at,
                    milliseconds=outcome.milliseconds,
                    status=outcome.status,
                    error=outcome.error,
                )
            )
            if row.attempts != parcel.number:
                return  # the lease ran out, and another process has taken it
            row.lease, row.leased_until = None, 0
            row.tries_left -= 1
            if outcome.delivered:
                row.state = "delivered"
            elif outcome.status == _GONE:
                row.state = "failed"
                session.get_one(WebhookEndpoint, parcel.endpoint_id).disabled_at = now
            elif row.tries_left <= 0:
                row.state = "failed"
            else:
                row.next_at = now + BACKOFF_SECONDS[-row.tries_left] * SECOND
        if not outcome.delivered:
            told = outcome.error or f"status {outcome.status}"
            _log.warning("webhook %s to %s failed: %s", parcel.event_id, parcel.endpoint_id, told)


def signed(event_id: str, at: int, parcel: _Parcel) -> dict[str, str]:
    """The headers of a delivery, as Standard Webhooks has them: a signature for each secret that is good."""
    timestamp = str(at // SECOND)
    content = b".".join((event_id.encode(), timestamp.encode(), parcel.body))
    signatures = [
        base64.b64encode(
            hmac.digest(base64.b64decode(each.removeprefix("whsec_")), content, hashlib.sha256)
        ).decode()
        for each in parcel.secrets
    ]
    return {
        "content-type": "application/json",
        "user-agent": "tuition-webhooks",
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{each}" for each in signatures),
    }
