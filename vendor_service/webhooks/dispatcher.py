"""The dispatcher: takes deliveries that are due, sends each, and notes what became of it."""

import base64
import hashlib
import hmac
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, func, select, tuple_

from shared.fairness import FairQueue
from vendor_service.clock import SECOND, Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import WebhookAttempt, WebhookDelivery, WebhookEndpoint, WebhookEvent
from vendor_service.errors import APIError
from vendor_service.webhooks import retention
from vendor_service.webhooks.events import BACKOFF_SECONDS
from vendor_service.webhooks.networks import Network
from vendor_service.webhooks.sending import Outcome, send

# Longer than a try may take, its look-up of a name included.
_LEASE = 90 * SECOND
# How many are sent at once, and how many of them to one receiver, who may be slow, and to one account's.
_AT_ONCE, _AT_ONE_RECEIVER, _AT_ONE_ACCOUNT = 32, 4, 8
# How often events of long ago are looked for.
_FORGET_SECONDS = 3600.0
_GONE = 410  # by which a receiver says that it wants no more

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Parcel:
    """A delivery that this process holds the lease of."""

    event_id: str
    endpoint_id: str
    whose: str
    number: int
    url: str
    body: bytes
    secrets: tuple[str, ...] = field(repr=False)
    may_be_private: bool


class Dispatcher:
    """Delivers events in threads of its own, so that nothing waits for a receiver.

    Receivers that operators added may be on the `private` networks as well. Accounts take turns: one
    whose receivers are slow holds up its own events alone.

    Several processes on one database share the work: who sends something holds a lease on it, which outlasts
    the try. What a process that died had in hand is sent again when its lease is over, under the same id.
    While the clock is not right it rests: a wrong one would delete what is to stay, and put off what is due.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        private: Sequence[Network] = (),
        is_clock_right: Callable[[], bool] = lambda: True,
    ) -> None:
        self._database = database
        self._clock = clock
        self._private = private
        self._is_clock_right = is_clock_right
        self._lease = secrets.token_hex(16)
        self._in_hand: set[_Parcel] = set()
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self, every_seconds: float) -> None:
        """Deliver what is due now and then, until `stop`."""
        self._every_seconds = every_seconds
        self._thread.start()

    def stop(self) -> None:
        """Take nothing more. What is being sent is not waited for: its lease runs out."""
        self._stopping.set()
        self._woken.set()
        self._thread.join(timeout=1.0)

    def once(self) -> int:
        """Send what is due, up to a few at once, and wait until it is sent; how many."""
        senders = self._begin()
        for each in senders:
            each.join()
        return len(senders)

    def forget(self) -> None:
        """Delete the events of long ago."""
        forgotten = True
        while forgotten and not self._stopping.is_set():
            with self._database.write() as session:
                forgotten = bool(retention.forget(session, self._clock()))

    def _run(self) -> None:
        forget_at = 0.0
        while not self._stopping.is_set():
            self._woken.clear()
            if not self._is_clock_right():
                self._woken.wait(self._every_seconds)
                continue
            try:
                if time.monotonic() >= forget_at:
                    forget_at = time.monotonic() + _FORGET_SECONDS
                    self.forget()
                begun = bool(self._begin())
            except APIError as error:
                _log.warning("webhooks were put off: %s", error)
                begun = False
            except Exception:
                if not self._stopping.is_set():
                    _log.exception("delivering webhooks failed; it will be tried again")
                begun = False
            if not begun:  # until there is more, or a sender is free again
                self._woken.wait(self._every_seconds)

    def _begin(self) -> list[threading.Thread]:
        """Begin to send what is due, as far as there are senders for it; the threads that do."""
        senders = []
        for parcel in self._take():
            self._in_hand.add(parcel)
            senders.append(threading.Thread(target=self._deliver, args=(parcel,), daemon=True))
            try:
                senders[-1].start()
            except Exception:  # the system has no room for it now; it is sent when the lease is over
                self._in_hand.discard(parcel)
                raise
        return senders

    def _take(self) -> list[_Parcel]:
        """Lease what is due and has its turn."""
        now = self._clock()
        # To choose takes a look at all that is due, so nobody is locked out meanwhile.
        keys = self._chosen(now)
        if not keys:
            return []
        row = WebhookDelivery
        due = (row.state == "pending", row.next_at <= now, row.leased_until <= now)
        chosen = select(row).where(tuple_(row.event_id, row.endpoint_id).in_(keys), *due)
        parcels: list[_Parcel] = []
        with self._database.write() as session:
            for delivery in session.scalars(chosen.with_for_update(skip_locked=True)):
                endpoint = session.get_one(WebhookEndpoint, delivery.endpoint_id)
                if endpoint.disabled_at is not None:
                    delivery.state = "failed"
                    self._woken.set()  # what is behind it need not wait
                    continue
                delivery.attempts += 1
                delivery.lease, delivery.leased_until = self._lease, now + _LEASE
                event = session.get_one(WebhookEvent, delivery.event_id)
                parcels.append(_parcel(delivery, endpoint, event, now))
        return parcels

    def _chosen(self, now: int) -> list[tuple[str, str]]:
        """The keys of deliveries that are due, as many as there are senders for; accounts take turns.

        Who is slow waits, behind all others, until there is an answer.
        """
        of_receivers = Counter(each.endpoint_id for each in self._in_hand)
        of_accounts = Counter(each.whose for each in self._in_hand)
        free, waiting = _AT_ONCE - len(self._in_hand), FairQueue[tuple[str, str, str]]()
        keys: list[tuple[str, str]] = []
        if free <= 0:
            return keys
        with self._database.read() as session:
            for event_id, endpoint_id, account_id, added_by in session.execute(_due(now)):
                whose = _whose(account_id, added_by)
                waiting.put(whose, [(event_id, endpoint_id, whose)])
        while len(keys) < free and (next_one := waiting.take()) is not None:
            event_id, endpoint_id, whose = next_one
            if of_receivers[endpoint_id] < _AT_ONE_RECEIVER and of_accounts[whose] < _AT_ONE_ACCOUNT:
                of_receivers[endpoint_id] += 1
                of_accounts[whose] += 1
                keys.append((event_id, endpoint_id))
        return keys

    def _deliver(self, parcel: _Parcel) -> None:
        at = self._clock()
        private = self._private if parcel.may_be_private else None
        try:
            outcome = send(parcel.url, parcel.body, signed(parcel.event_id, at, parcel), private)
            self._note(parcel, at, outcome)
        except APIError as error:  # it is sent again when the lease is over
            _log.warning("what became of the webhook %s could not be noted: %s", parcel.event_id, error)
        finally:
            self._in_hand.discard(parcel)
            self._woken.set()

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
            elif self._is_clock_right():  # else it is due as it was, and tried again once the clock is right
                row.next_at = now + BACKOFF_SECONDS[-row.tries_left] * SECOND
        if not outcome.delivered:
            told = outcome.error or f"status {outcome.status}"
            _log.warning("webhook %s to %s failed: %s", parcel.event_id, parcel.endpoint_id, told)


def _due(now: int) -> Select[*tuple[Any, ...]]:
    """The first few deliveries of each receiver that nobody sends, and whose receivers these are."""
    row, endpoint = WebhookDelivery, WebhookEndpoint
    of_receiver = func.row_number().over(partition_by=row.endpoint_id, order_by=row.next_at)
    due = (
        select(row.event_id, row.endpoint_id, of_receiver.label("number"))
        .where(row.state == "pending", row.next_at <= now, row.leased_until <= now)
        .subquery()
    )
    # Among equals it is by lot: the oldest first would be those of whom has most.
    return (
        select(due.c.event_id, due.c.endpoint_id, endpoint.account_id, endpoint.added_by)
        .join(endpoint, endpoint.id == due.c.endpoint_id)
        .where(due.c.number <= _AT_ONE_RECEIVER)
        .order_by(due.c.number, func.random())
    )


def _whose(account_id: str | None, added_by: str) -> str:
    """The group in which a receiver takes its turn: customers' receivers hold up none of operators."""
    return f"{account_id} {added_by}"


def _parcel(row: WebhookDelivery, endpoint: WebhookEndpoint, event: WebhookEvent, now: int) -> _Parcel:
    signs = [endpoint.secret]
    if endpoint.former_secret is not None and now < (endpoint.former_until or 0):
        signs.append(endpoint.former_secret)
    return _Parcel(
        row.event_id,
        row.endpoint_id,
        _whose(endpoint.account_id, endpoint.added_by),
        row.attempts,
        endpoint.url,
        event.content.encode(),
        tuple(signs),
        endpoint.added_by == "operator",
    )


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
