"""Charging: what admission does to the rows of accounts, projects, keys and holds, in one transaction.

The rows are locked; what is to be charged is held first, and then settled into the ledger or released.
"""

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Protocol, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from shared.kinds import Counts, cost_micros, queries
from vendor_service.clock import Clock
from vendor_service.database.rows import HoldRow
from vendor_service.database.tables import BULK, Account, ApiKey, LedgerEntry, limited_by
from vendor_service.database.working_set import WorkingSet
from vendor_service.errors import APIError
from vendor_service.money import (
    billing_log,
    coverage,
    ledger,
    limits,
    periods,
    prices,
    rate,
    thresholds,
)
from vendor_service.money.clock_watch import ClockWatch
from vendor_service.money.orders import Admitted, Charged, HeldJob, Job, JobPart, Order
from vendor_service.money.replays import ReplayTerms

_log = logging.getLogger(__name__)

Job_co = TypeVar("Job_co", covariant=True)


class JobRecord(Protocol[Job_co]):
    """Writes a bulk job down in the transaction that holds its price."""

    def found(self, session: Session) -> Job_co | None:
        """The job, if it was written down before; raises `APIError` if it must not be."""

    def write(self, session: Session, hold: HoldRow, now: int) -> Job_co:
        """Write it down."""


class PartRecord(Protocol):
    """Writes down that a part of a bulk job is done, in the transaction that charges for it."""

    def found(self, session: Session) -> bool:
        """Whether it was written down before; raises `APIError` if it must not be any more."""

    def write(self, session: Session, account: Account, charged: Charged | None, now: int) -> bool:
        """Write it down, with its charge if anything was answered; whether the job has ended with it."""


class Charging:
    """Each of its methods is one piece of work on the rows of a transaction, which may have others.

    One that raises `APIError` has changed nothing. They may be done again after a commit of which nobody said
    whether it had gone through, and find what they did; but that an answer is given again, and what is taken
    of a rate for it, is then counted twice.

    Args:
        clock: what the time is.
        server: the process whose holds it places.
        hold_micros: how long a hold lasts unless it is renewed.
        replays: the terms on which what was paid for is answered again.
        watch: finds whether the clock can be believed; without one it is.
        percents: webhooks are told when what is used reaches another of these shares of a limit.
    """

    def __init__(
        self,
        clock: Clock,
        server: str,
        hold_micros: int,
        replays: ReplayTerms,
        watch: ClockWatch | None,
        percents: tuple[int, ...],
    ) -> None:
        self._clock = clock
        self._server = server
        self._hold_micros = hold_micros
        self._replays = replays
        self._watch = watch
        self._percents = percents
        self._told: set[str] = set()  # accounts whose dates were complained of

    def admit(self, order: Order, rows: WorkingSet) -> Admitted:
        """Check every limit and hold the price, or find what was paid for before."""
        now = self._clock()
        account, key = rows.account(order.account_id), rows.key(order.key_id)
        placed = rows.hold(order.request_id)
        if placed is not None:  # by a commit of which nobody said that it had gone through
            return _admitted(account, key, placed, now)
        self._check_dates(account, now)
        limits.check_status(account, key, order, now)
        periods.roll(account, key, now)
        rate.check(account, key, order.queries, now)
        earlier = self._earlier(rows, order, now)
        hold = earlier or self._hold(rows, account, key, order, now)
        rate.take(account, key, order.queries, now)
        charged = None if earlier is None else _charged(rows, earlier)
        return _admitted(account, key, hold, now, charged)

    def take_tokens(self, account_id: str, key_id: str, queries: int, rows: WorkingSet) -> None:
        """Count queries against the rates that were prepared and not admitted; twice if it is done twice."""
        rate.take(rows.account(account_id), rows.key(key_id), queries, self._clock())

    def settle(self, request_id: str, buckets: Collection[int], rows: WorkingSet) -> Charged:
        """Turn a hold into a charge; what was settled stays as it is."""
        hold = rows.hold(request_id)
        if hold is not None and hold.state == "settled":
            return _charged(rows, hold)
        if hold is None or hold.state != "open":
            raise APIError(
                ErrorCode.DEADLINE_EXCEEDED,
                "the answer took too long and its hold was released; nothing was charged, try again",
                retry_after=1,
            )
        now = self._clock()
        self._check_dates(rows.account(hold.account_id), now)
        charged = self._settle(rows, hold, buckets, now)
        billing_log.finished(rows.session, hold, now)
        return charged

    def sell(self, order: Order, buckets: Collection[int], rows: WorkingSet) -> Admitted:
        """Admit and settle at once; what was paid for before is not charged again."""
        admitted = self.admit(order, rows)
        hold = rows.hold(order.request_id)
        if hold is None:  # another one paid for it
            return admitted
        if hold.state == "settled":  # by a commit of which nobody said that it had gone through
            return replace(admitted, charged=_charged(rows, hold))
        return replace(admitted, charged=self._settle(rows, hold, buckets, hold.created_at))

    def hold_job(self, order: Order, record: JobRecord[Job], rows: WorkingSet) -> HeldJob[Job]:
        """Check every limit but the rate, hold the price of a bulk job and write it down."""
        found = record.found(rows.session)
        if found is not None:
            # Its hold is this order's own after a commit of which nobody said that it had gone through.
            return HeldJob(found, _admitted_job(order, rows.hold(order.request_id)))
        now = self._clock()
        account, key = rows.account(order.account_id), rows.key(order.key_id)
        self._check_dates(account, now)
        limits.check_status(account, key, order, now)
        periods.roll(account, key, now)
        hold = self._hold(rows, account, key, order, now)
        rows.write()  # the job refers to it
        return HeldJob(record.write(rows.session, hold, now), _admitted_job(order, hold))

    def settle_part(
        self, hold_id: str, part: JobPart, record: PartRecord, rows: WorkingSet
    ) -> Charged | None:
        """Charge for a part of a bulk job, and release what was held for the rest of it."""
        if record.found(rows.session):
            return _charge_of(rows, part.request_id)
        hold = rows.hold(hold_id)
        if hold is None or hold.state != "open":
            message = "the job has ended, and nothing more is charged for it"
            raise APIError(ErrorCode.DEADLINE_EXCEEDED, message)
        now = self._clock()
        account, key = rows.account(hold.account_id), rows.key(hold.key_id)
        self._check_dates(account, now)
        periods.roll(account, key, now)
        _shrink(rows, hold, part.held)
        charged = None
        if queries(part.answered):
            done = _settled(hold, part, now)
            rows.add(done)
            charged = self._charge(rows, done, part.buckets, now)
            billing_log.finished(rows.session, done, now)
            rows.write()  # the record refers to it
        if record.write(rows.session, account, charged, now):
            release_job(rows, hold, now)
        return charged

    def end_job(self, hold_id: str, ends: Callable[[Session, Account, int], bool], rows: WorkingSet) -> bool:
        """Release what is still held for a bulk job, if it `ends` now; whether it does."""
        hold, now = rows.hold(hold_id), self._clock()
        if hold is None or not ends(rows.session, rows.account(hold.account_id), now):
            return False
        release_job(rows, hold, now)
        return True

    def void(self, hold_id: str, expired_at: int | None, rows: WorkingSet) -> bool:
        """Release a hold that is open, and has expired where that is asked; whether it was."""
        hold = rows.hold(hold_id)
        if hold is None or hold.state != "open":
            return False
        if expired_at is not None and hold.expires_at > expired_at:
            return False  # renewed since it was found
        _release(rows, hold, "voided")
        billing_log.finished(rows.session, hold, self._clock())
        return True

    def take_back_replay(self, hold_id: str, rows: WorkingSet) -> None:
        """Count once less that what a hold paid for was answered again; twice if it is done twice."""
        hold = rows.hold(hold_id)
        if hold is not None and hold.replays > 0:
            hold.replays -= 1

    def _check_dates(self, account: Account, now: int) -> None:
        """Make sure that what is charged to the account now would be dated rightly.

        Raises:
            APIError: `not_ready`; this clock is wrong, or one was that wrote the account's books.
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
        raise APIError(ErrorCode.NOT_READY, message, retry_after=30)

    def _settle(self, rows: WorkingSet, hold: HoldRow, buckets: Collection[int], now: int) -> Charged:
        periods.roll(rows.account(hold.account_id), rows.key(hold.key_id), now)
        _release(rows, hold, "settled")
        return self._charge(rows, hold, buckets, now)

    def _charge(self, rows: WorkingSet, hold: HoldRow, buckets: Collection[int], now: int) -> Charged:
        """Write the ledger entry of a hold that was released for it, and count what it used."""
        account, key = rows.account(hold.account_id), rows.key(hold.key_id)
        limited = limited_by(account, key)
        before = [thresholds.levels(each) for each in limited]
        entry = ledger.charge(account, hold, now)
        rows.charge(entry)
        for each in limited:
            each.queries_used += queries(hold.counts)
            each.spent_micros += hold.cost_micros
        if account.coverage_limit is not None:
            coverage.add(rows.session, account, hold.model_fingerprint, coverage.bits(buckets))
        for each, stood in zip(limited, before, strict=True):
            thresholds.tell(rows.session, account, stood, self._percents, now, of=each)
        return Charged(entry.seq, entry.entry_hash, entry.created_at, hold.key_id, hold.cost_micros)

    def _earlier(self, rows: WorkingSet, order: Order, now: int) -> HoldRow | None:
        """The settled hold that this order repeats, if it does; see `admit` for what it raises."""
        if order.idempotency_key is None:
            return None
        hold = rows.live_hold(order.account_id, order.idempotency_key)
        if hold is None:
            return None
        if self._replays.check(hold, order, now):
            self._replays.check_counts(hold, order)
            hold.replays += 1
            return hold
        _release(rows, hold, "voided")
        billing_log.finished(rows.session, hold, now)
        return None

    def _hold(self, rows: WorkingSet, account: Account, key: ApiKey, order: Order, now: int) -> HoldRow:
        is_bulk = order.held_until is not None
        find_price = prices.batch if is_bulk else prices.current
        price = find_price(rows.session, account.plan, order.model, now)
        hold = HoldRow(
            id=order.request_id,
            account_id=account.id,
            key_id=key.id,
            project_id=key.project_id,
            server=BULK if is_bulk else self._server,
            state="open",
            model=order.model,
            model_fingerprint=order.model_fingerprint,
            counts=order.counts,
            prices=price,
            cost_micros=cost_micros(order.counts, price),
            idempotency_key=order.idempotency_key,
            body_hash=order.body_hash,
            created_at=now,
            expires_at=order.held_until or now + self._hold_micros,
        )
        limits.check(account, key, order, hold.cost_micros, now)
        rows.add(hold)
        limits.hold(account, key, order, hold.cost_micros)
        return hold


def _admitted_job(order: Order, hold: HoldRow | None) -> Admitted:
    """What a job's order was admitted for; without a hold of its own, it found a job of before."""
    cost = 0 if hold is None else hold.cost_micros
    return Admitted(order.request_id, order.counts, cost, hold is None, None, None)


def release_job(rows: WorkingSet, hold: HoldRow, now: int) -> None:
    """Release what is still held for a bulk job that has ended; its account and key are locked in `rows`."""
    if hold.state == "open":
        _release(rows, hold, "voided")
        billing_log.finished(rows.session, hold, now)


def _release(rows: WorkingSet, hold: HoldRow, state: str) -> None:
    hold.state = state
    key = rows.key(hold.key_id)
    for each in limited_by(rows.account(hold.account_id), key):
        each.queries_held -= queries(hold.counts)
        each.held_micros -= hold.cost_micros
    if hold.server != BULK:
        key.requests_held -= 1


def _shrink(rows: WorkingSet, hold: HoldRow, counts: Counts) -> None:
    """Hold so many queries less, and their price."""
    left = {kind: number - counts.get(kind, 0) for kind, number in hold.counts.items()}
    assert min(left.values()) >= 0
    cost = cost_micros(counts, hold.prices)
    hold.counts = left
    hold.cost_micros -= cost
    for each in limited_by(rows.account(hold.account_id), rows.key(hold.key_id)):
        each.queries_held -= queries(counts)
        each.held_micros -= cost


def _settled(hold: HoldRow, part: JobPart, now: int) -> HoldRow:
    """A hold of its own for what was answered of a part of another hold."""
    return HoldRow(
        id=part.request_id,
        account_id=hold.account_id,
        key_id=hold.key_id,
        project_id=hold.project_id,
        server=BULK,
        state="settled",
        model=hold.model,
        model_fingerprint=hold.model_fingerprint,
        counts=part.answered,
        prices=hold.prices,
        cost_micros=cost_micros(part.answered, hold.prices),
        idempotency_key=None,
        body_hash=hold.body_hash,
        created_at=now,
        expires_at=now,
    )


def _charged(rows: WorkingSet, hold: HoldRow) -> Charged:
    """The entry of a settled hold."""
    charged = _charge_of(rows, hold.id)
    assert charged is not None
    return charged


def _charge_of(rows: WorkingSet, hold_id: str) -> Charged | None:
    rows.write()  # it may be of this very transaction
    entry = rows.session.scalars(select(LedgerEntry).where(LedgerEntry.hold_id == hold_id)).one_or_none()
    if entry is None:
        return None
    return Charged(entry.seq, entry.entry_hash, entry.created_at, str(entry.key_id), -entry.amount_micros)


def _admitted(
    account: Account, key: ApiKey, hold: HoldRow, now: int, charged: Charged | None = None
) -> Admitted:
    lefts = [left for each in limited_by(account, key) if (left := each.quota_left) is not None]
    return Admitted(
        request_id=hold.id,
        counts=hold.counts,
        cost_micros=hold.cost_micros,
        replayed=charged is not None,
        quota_left=min(lefts, default=None),
        rate=rate.status(account, key, now),
        charged=charged,
    )
