"""Admission: the two short transactions around the model that charge exactly once, or not at all.

Every change of a hold and of the counters of an account and its keys happens under the lock of the
account's row, so admitting, settling, voiding and sweeping one account never interleave, and of settling
and voiding a hold exactly one wins.
"""

import logging
import secrets
import time
from collections import deque
from concurrent.futures import CancelledError, Future
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import select, update

from shared.errors import ErrorCode
from vendor_service.billing import billing_log, ledger, periods, prices, rate
from vendor_service.billing.clock_watch import ClockWatch
from vendor_service.billing.orders import Admitted, Order, RateStanding
from vendor_service.clock import SECOND, Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, ApiKey, Hold, Limited
from vendor_service.database.working_set import Touched, WorkingSet
from vendor_service.database.writer import Writer
from vendor_service.errors import Refusal

_log = logging.getLogger(__name__)


class Admission:
    """Admits, settles and voids, each in a transaction that it may share with others. Thread-safe.

    A hold that is neither settled nor voided within `hold_seconds` is swept, unless `renew` moved that on:
    so the holds of a process that is gone are released soon, whichever process sweeps. Nothing is charged
    while the `watch` finds the clock wrong; without one the clock is believed.
    """

    def __init__(
        self, database: Database, clock: Clock, hold_seconds: int, watch: ClockWatch | None = None
    ) -> None:
        self._database = database
        self._writer = Writer(database)
        self._clock = clock
        self._watch = watch
        self._told: set[str] = set()  # accounts whose dates were complained of
        self._hold_micros = hold_seconds * SECOND
        self._server = secrets.token_hex(16)
        # Holds that ought to be gone, but the database was away or its disk full: `sweep` voids them later.
        self._unwanted: deque[Touched] = deque()

    def close(self) -> None:
        """Finish what was begun."""
        self._writer.close()

    def admit(self, order: Order) -> "Future[Admitted]":
        """Check every limit and hold the price, in one transaction (the first of the two).

        The future raises `Refusal` where a limit is reached, or the idempotency key is in flight or was used
        for another body; nothing is held then.
        """
        began = time.perf_counter()
        touched = Touched(order.account_id, order.request_id, order.key_id, order.idempotency_key)
        admitting = self._writer.submit(touched, partial(self._admit, order))
        admitting.add_done_callback(
            lambda done: billing_log.decided(order, done, time.perf_counter() - began)
        )
        # Where the database does not answer, the hold may have been placed all the same.
        admitting.add_done_callback(partial(self._note_failure, Touched(order.account_id, order.request_id)))
        return admitting

    def settle(self, account_id: str, request_id: str) -> "Future[None]":
        """Turn the hold into a ledger entry (the second transaction); only then may the answer go out.

        The future raises `Refusal` (`deadline_exceeded`) if the hold was voided meanwhile; nothing is charged
        then. Settling again changes nothing.
        """
        return self._writer.submit(Touched(account_id, request_id), partial(self._settle, request_id))

    def void(self, account_id: str, request_id: str) -> "Future[bool]":
        """Release the hold of a request that is not answered; whether there was one to release.

        If that fails, `sweep` tries again.
        """
        touched = Touched(account_id, request_id)
        voiding = self._writer.submit(touched, partial(self._void, request_id, None))
        voiding.add_done_callback(partial(self._note_failure, touched))
        return voiding

    def renew(self, longest_seconds: int) -> None:
        """Tell that this process lives: its holds last longer, unless they have lasted `longest_seconds`."""
        now = self._clock()
        mine = (Hold.state == "open", Hold.server == self._server)
        with self._database.write() as session:
            session.execute(
                update(Hold)
                .where(*mine, Hold.created_at > now - longest_seconds * SECOND)
                .values(expires_at=now + self._hold_micros)
            )

    def sweep(self) -> int:
        """Void the holds that have expired, and what failed to be voided before; how many had expired."""
        for touched in [self._unwanted.popleft() for _ in range(len(self._unwanted))]:
            self.void(touched.account_id, str(touched.hold_id))
        return self._void_all(expired_at=self._clock())

    def void_abandoned(self) -> int:
        """Void every open hold: those of a process that is gone, at the start of its only successor."""
        return self._void_all(expired_at=None)

    def _note_failure(self, touched: Touched, done: "Future[Any]") -> None:
        failure = CancelledError() if done.cancelled() else done.exception()
        if isinstance(failure, Refusal) and failure.code != ErrorCode.OVERLOADED:
            return  # the outcome of the work itself
        if failure is not None:
            self._unwanted.append(touched)

    def _void_all(self, expired_at: int | None) -> int:
        still_open = select(Hold.account_id, Hold.id).where(Hold.state == "open")
        if expired_at is not None:
            still_open = still_open.where(Hold.expires_at <= expired_at)
        with self._database.read() as session:
            found = session.execute(still_open).all()
        voiding = [
            self._writer.submit(Touched(account_id, hold_id), partial(self._void, hold_id, expired_at))
            for account_id, hold_id in found
        ]
        return sum(each.result() for each in voiding)

    def _check_dates(self, account: Account, now: int) -> None:
        """Make sure that what is charged to the account now would be dated rightly.

        Raises:
            Refusal: `not_ready`; this clock is wrong, or one was that wrote the account's books.
        """
        if self._watch is not None:
            self._watch.check()
        if not periods.is_ahead(account, now):
            self._told.discard(account.id)
            return
        if account.id not in self._told:
            self._told.add(account.id)
            _log.error(
                "the books of %s go on to a date ahead of this clock, and nothing is charged to it; set the "
                "clock right, or if it is right run: vendor accounts repair %s",
                account.name,
                account.name,
            )
        message = "this account's books have a date in the future, so nothing can be charged; ask the vendor"
        raise Refusal(ErrorCode.NOT_READY, message, retry_after=30)

    def _admit(self, order: Order, rows: WorkingSet) -> Admitted:
        now = self._clock()
        account, key = rows.account(order.account_id), rows.key(order.key_id)
        placed = rows.hold(order.request_id)
        if placed is not None:  # by a commit of which nobody said that it had gone through
            return _admitted(account, key, placed, now, replayed=False)
        self._check_dates(account, now)
        if account.status != "active":
            raise Refusal(ErrorCode.ACCOUNT_SUSPENDED, "this account is suspended; ask the vendor why")
        if key.revoked_at is not None:
            raise Refusal(ErrorCode.KEY_REVOKED, "this API key was revoked; ask the vendor for a new one")
        periods.roll(account, key, now)
        rate.check(account, order.queries, now)
        earlier = self._earlier(rows, order, now)
        hold = earlier or self._hold(rows, account, key, order, now)
        rate.take(account, order.queries, now)
        return _admitted(account, key, hold, now, replayed=earlier is not None)

    def _settle(self, request_id: str, rows: WorkingSet) -> None:
        hold = rows.hold(request_id)
        if hold is not None and hold.state == "settled":
            return
        if hold is None or hold.state != "open":
            raise Refusal(
                ErrorCode.DEADLINE_EXCEEDED,
                "the answer took too long and its hold was released; nothing was charged, try again",
                retry_after=1,
            )
        now = self._clock()
        account, key = rows.account(hold.account_id), rows.key(hold.key_id)
        self._check_dates(account, now)
        periods.roll(account, key, now)
        ledger.charge(rows.session, account, hold, now)
        _release(rows, hold, "settled")
        for each in (account, key):
            each.queries_used += hold.images + hold.texts
            each.spent_micros += hold.cost_micros
        billing_log.finished(rows.session, hold, now)

    def _void(self, hold_id: str, expired_at: int | None, rows: WorkingSet) -> bool:
        hold = rows.hold(hold_id)
        if hold is None or hold.state != "open":
            return False
        if expired_at is not None and hold.expires_at > expired_at:
            return False  # renewed since it was found
        _release(rows, hold, "voided")
        billing_log.finished(rows.session, hold, self._clock())
        return True

    def _earlier(self, rows: WorkingSet, order: Order, now: int) -> Hold | None:
        """The settled hold that this order repeats, if it does; see `admit` for what it raises."""
        if order.idempotency_key is None:
            return None
        hold = rows.live_hold(order.account_id, order.idempotency_key)
        if hold is None:
            return None
        if hold.body_hash != order.body_hash:
            message = "this Idempotency-Key was used for another request; use a new key for a new request"
            raise Refusal(ErrorCode.IDEMPOTENCY_KEY_REUSED, message)
        if hold.state == "open":
            if hold.expires_at <= now:
                _release(rows, hold, "voided")
                billing_log.finished(rows.session, hold, now)
                rows.session.flush()  # its idempotency key is free before another hold takes it
                return None
            message = "the first request with this Idempotency-Key is still being answered"
            raise Refusal(ErrorCode.IDEMPOTENCY_IN_FLIGHT, message, retry_after=1)
        if hold.model_fingerprint != order.model_fingerprint:
            message = "the model that this Idempotency-Key was paid for is no longer served; use a new key"
            raise Refusal(ErrorCode.FINGERPRINT_MISMATCH, message)
        return hold

    def _hold(self, rows: WorkingSet, account: Account, key: ApiKey, order: Order, now: int) -> Hold:
        price = prices.current(rows.session, account.plan, order.model, now)
        hold = Hold(
            id=order.request_id,
            account_id=account.id,
            key_id=key.id,
            server=self._server,
            state="open",
            model=order.model,
            model_fingerprint=order.model_fingerprint,
            images=order.images,
            texts=order.texts,
            image_micros=price.image_micros,
            text_micros=price.text_micros,
            cost_micros=price.cost_micros(order.images, order.texts),
            idempotency_key=order.idempotency_key,
            body_hash=order.body_hash,
            created_at=now,
            expires_at=now + self._hold_micros,
        )
        max_cost = order.max_cost_micros
        if max_cost is not None and hold.cost_micros > max_cost:
            message = f"this request costs {hold.cost_micros} micro-units; x-max-cost-micros is {max_cost}"
            raise Refusal(ErrorCode.MAX_COST_EXCEEDED, message)
        resets_at = periods.resets_at(account, now)
        _check_limits(account, "this account", hold, resets_at)
        _check_limits(key, "this key", hold, resets_at)
        _check_credit(account, hold)
        rows.add(hold)
        for each in (account, key):
            each.queries_held += order.queries
            each.held_micros += hold.cost_micros
        return hold


def _check_limits(limited: Limited, whose: str, hold: Hold, resets_at: datetime | None) -> None:
    queries, left = hold.images + hold.texts, limited.quota_left
    if left is not None and queries > left:
        message = f"this request asks {queries} queries; {whose} has {left} left of its quota"
        raise Refusal(ErrorCode.QUOTA_EXHAUSTED, f"{message} of {limited.quota}", resets_at=resets_at)
    cost, left = hold.cost_micros, limited.spend_limit_left
    if left is not None and cost > left:
        message = f"this request costs {cost} micro-units; {whose} has {left} left of its spend limit"
        limit = limited.spend_limit_micros
        raise Refusal(ErrorCode.SPEND_LIMIT_REACHED, f"{message} of {limit}", resets_at=resets_at)


def _check_credit(account: Account, hold: Hold) -> None:
    if account.credit_micros is not None and account.held_micros + hold.cost_micros > account.credit_micros:
        left = max(0, account.credit_micros - account.held_micros)
        message = f"this request costs {hold.cost_micros} micro-units; {left} of credit are left: pay in more"
        raise Refusal(ErrorCode.INSUFFICIENT_CREDIT, message)


def _release(rows: WorkingSet, hold: Hold, state: str) -> None:
    hold.state = state
    for each in (rows.account(hold.account_id), rows.key(hold.key_id)):
        each.queries_held -= hold.images + hold.texts
        each.held_micros -= hold.cost_micros


def _admitted(account: Account, key: ApiKey, hold: Hold, now: int, *, replayed: bool) -> Admitted:
    lefts = [left for each in (account, key) if (left := each.quota_left) is not None]
    return Admitted(
        request_id=hold.id,
        images=hold.images,
        texts=hold.texts,
        cost_micros=hold.cost_micros,
        replayed=replayed,
        quota_left=min(lefts, default=None),
        rate=_rate_standing(account, now),
    )


def _rate_standing(account: Account, now: int) -> RateStanding | None:
    limit = rate.limit_of(account)
    if limit is None:
        return None
    left = rate.tokens_left(account, now)
    missing = limit.burst * SECOND - left
    return RateStanding(
        limit.burst, max(0, left // SECOND), -(-missing // (limit.queries_per_second * SECOND))
    )
