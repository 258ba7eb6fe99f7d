"""Admission: the two short transactions around the model that charge exactly once, or not at all.

Every change of a hold and of an account's counters happens under the lock of the account's row, so
admitting, settling, voiding and sweeping one account never interleave, and of settling and voiding a
hold exactly one wins.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from vendor_service.billing import ledger, periods, prices, rate
from vendor_service.clock import SECOND, Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, Hold
from vendor_service.errors import Refusal


@dataclass(frozen=True)
class Order:
    """What a request asks for; by `body_hash` (SHA-256, hex) a retry is told from another request."""

    request_id: str
    account_id: str
    key_id: str
    model: str
    model_fingerprint: str
    images: int
    texts: int
    body_hash: str
    idempotency_key: str | None = None
    max_cost_micros: int | None = None

    @property
    def queries(self) -> int:
        """The billed units."""
        return self.images + self.texts


@dataclass(frozen=True)
class RateStanding:
    """The account's bucket after this request, in queries; `reset_seconds` until it is full again."""

    limit: int
    remaining: int
    reset_seconds: int


@dataclass(frozen=True)
class Admitted:
    """An order that may be encoded: held, or paid already and `replayed`, with the bill of the first time.

    `quota_left` counts this order as used; it and `rate` are `None` where the account has no such limit.
    """

    request_id: str
    images: int
    texts: int
    cost_micros: int
    replayed: bool
    quota_left: int | None
    rate: RateStanding | None


class Admission:
    """Admits, settles and voids. Blocking and thread-safe.

    A hold that is neither settled nor voided within `hold_seconds` is swept.
    """

    def __init__(self, database: Database, clock: Clock, hold_seconds: int) -> None:
        self._database = database
        self._clock = clock
        self._hold_micros = hold_seconds * SECOND

    def admit(self, order: Order) -> Admitted:
        """Check every limit and hold the price, in one transaction (the first of the two).

        Raises:
            Refusal: a limit is reached, or the idempotency key is in flight or was used for another
                body; nothing is held then.
        """
        with self._database.write() as session:
            now = self._clock()
            account = _lock(session, order.account_id)
            periods.roll(account, now)
            rate.take(account, order.queries, now)
            earlier = self._earlier(session, account, order, now)
            hold = earlier or self._hold(session, account, order, now)
            return _admitted(account, hold, now, replayed=earlier is not None)

    def settle(self, account_id: str, request_id: str) -> None:
        """Turn the hold into a ledger entry (the second transaction); only then may the answer go out.

        Raises:
            Refusal: `deadline_exceeded` if the hold was voided meanwhile; nothing is charged then.
        """
        with self._database.write() as session:
            now = self._clock()
            account = _lock(session, account_id)
            hold = session.get_one(Hold, request_id)
            if hold.state != "open":
                raise Refusal(
                    ErrorCode.DEADLINE_EXCEEDED,
                    "the answer took too long and its hold was released; nothing was charged, try again",
                    retry_after=1,
                )
            periods.roll(account, now)
            ledger.charge(session, account, hold, now)
            _release(account, hold, "settled")
            account.queries_used += hold.images + hold.texts
            account.spent_micros += hold.cost_micros

    def void(self, account_id: str, request_id: str) -> bool:
        """Release the hold of a request that is not answered; whether there was one to release."""
        with self._database.write() as session:
            account = _lock(session, account_id)
            hold = session.get(Hold, request_id)
            if hold is None or hold.state != "open":
                return False
            _release(account, hold, "voided")
            return True

    def sweep(self) -> int:
        """Void the holds that have expired; how many there were."""
        return self._void_all(expired_at=self._clock())

    def void_abandoned(self) -> int:
        """Void every open hold: those of a process that is gone, at the start of its only successor."""
        return self._void_all(expired_at=None)

    def _void_all(self, expired_at: int | None) -> int:
        still_open = select(Hold.account_id, Hold.id).where(Hold.state == "open")
        if expired_at is not None:
            still_open = still_open.where(Hold.expires_at <= expired_at)
        with self._database.read() as session:
            found = session.execute(still_open).all()
        return sum(self.void(account_id, hold_id) for account_id, hold_id in found)

    def _earlier(self, session: Session, account: Account, order: Order, now: int) -> Hold | None:
        """The settled hold that this order repeats, if it does; see `admit` for what it raises."""
        if order.idempotency_key is None:
            return None
        hold = session.scalar(
            select(Hold).where(
                Hold.account_id == account.id,
                Hold.idempotency_key == order.idempotency_key,
                Hold.state != "voided",
            )
        )
        if hold is None:
            return None
        if hold.body_hash != order.body_hash:
            message = "this Idempotency-Key was used for another request; use a new key for a new request"
            raise Refusal(ErrorCode.IDEMPOTENCY_KEY_REUSED, message)
        if hold.state == "open":
            if hold.expires_at <= now:
                _release(account, hold, "voided")
                session.flush()
                return None
            message = "the first request with this Idempotency-Key is still being answered"
            raise Refusal(ErrorCode.IDEMPOTENCY_IN_FLIGHT, message, retry_after=1)
        if hold.model_fingerprint != order.model_fingerprint:
            message = "the model that this Idempotency-Key was paid for is no longer served; use a new key"
            raise Refusal(ErrorCode.FINGERPRINT_MISMATCH, message)
        return hold

    def _hold(self, session: Session, account: Account, order: Order, now: int) -> Hold:
        price = prices.current(session, order.model, now)
        hold = Hold(
            id=order.request_id,
            account_id=account.id,
            key_id=order.key_id,
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
        _check_limits(account, hold, order.max_cost_micros, periods.resets_at(account, now))
        session.add(hold)
        account.queries_held += order.queries
        account.held_micros += hold.cost_micros
        return hold


def _lock(session: Session, account_id: str) -> Account:
    # FOR UPDATE is PostgreSQL's; SQLite ignores it, since its whole transaction is the lock.
    return session.get_one(Account, account_id, with_for_update=True)


def _check_limits(account: Account, hold: Hold, max_cost: int | None, resets_at: datetime | None) -> None:
    queries, cost = hold.images + hold.texts, hold.cost_micros
    if max_cost is not None and cost > max_cost:
        message = f"this request costs {cost} micro-units, more than x-max-cost-micros allows ({max_cost})"
        raise Refusal(ErrorCode.MAX_COST_EXCEEDED, message)
    if account.quota is not None and account.queries_used + account.queries_held + queries > account.quota:
        left = max(0, account.quota - account.queries_used - account.queries_held)
        message = f"this request asks {queries} queries; {left} of the quota of {account.quota} are left"
        raise Refusal(ErrorCode.QUOTA_EXHAUSTED, message, resets_at=resets_at)
    limit = account.spend_limit_micros
    if limit is not None and account.spent_micros + account.held_micros + cost > limit:
        left = max(0, limit - account.spent_micros - account.held_micros)
        message = f"this request costs {cost} micro-units; {left} of the spend limit of {limit} are left"
        raise Refusal(ErrorCode.SPEND_LIMIT_REACHED, message, resets_at=resets_at)
    if account.credit_micros is not None and account.held_micros + cost > account.credit_micros:
        left = max(0, account.credit_micros - account.held_micros)
        message = f"this request costs {cost} micro-units; {left} of credit are left: pay in more"
        raise Refusal(ErrorCode.INSUFFICIENT_CREDIT, message)


def _release(account: Account, hold: Hold, state: str) -> None:
    hold.state = state
    account.queries_held -= hold.images + hold.texts
    account.held_micros -= hold.cost_micros


def _admitted(account: Account, hold: Hold, now: int, *, replayed: bool) -> Admitted:
    return Admitted(
        request_id=hold.id,
        images=hold.images,
        texts=hold.texts,
        cost_micros=hold.cost_micros,
        replayed=replayed,
        quota_left=None
        if account.quota is None
        else max(0, account.quota - account.queries_used - account.queries_held),
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
