"""Charging: what admission does to the rows of accounts, projects, keys and holds, in one transaction.

The rows are locked; what is to be charged is held first, and then settled into the ledger or released.
"""

import logging
from collections.abc import Collection
from dataclasses import replace

from sqlalchemy import select

from shared.errors import ErrorCode
from shared.kinds import NOTHING, Counts, cost_micros, queries
from vendor_service.clock import Clock, ClockWatch
from vendor_service.database.tables import BULK, Account, ApiKey, LedgerEntry, limited_by, roll_periods
from vendor_service.database.view import DEFAULT_ID
from vendor_service.database.working_set import HoldRow, WorkingSet
from vendor_service.errors import APIError
from vendor_service.money import (
    billing_log,
    coverage,
    ledger,
    limits,
    prices,
    rate,
    replays,
    standing,
)
from vendor_service.money.limits import Asked
from vendor_service.money.orders import Admitted, Charged, Order
from vendor_service.money.replays import ReplayTerms

_log = logging.getLogger(__name__)


class Charging:
    """Each of its methods is one piece of work on the rows of a transaction, which may have others.

    One that raises `APIError` has changed nothing. They are safe to repeat after a commit in doubt; only
    replays, and what is taken of a rate for them, count twice then.

    Args:
        clock: tells the time.
        server: the process whose holds it places.
        hold_micros: how long a hold lasts unless it is renewed.
        terms: those on which what was paid for is answered again.
        watch: finds whether the clock can be believed; without one it is.
        percents: webhooks are told when what is used reaches another of these shares of a limit.
    """

    def __init__(
        self,
        clock: Clock,
        server: str,
        hold_micros: int,
        terms: ReplayTerms,
        watch: ClockWatch | None,
        percents: tuple[int, ...],
    ) -> None:
        self.clock = clock
        self._server = server
        self._hold_micros = hold_micros
        self._terms = terms
        self._watch = watch
        self._percents = percents
        self._told: set[str] = set()  # accounts whose dates were complained of

    def admit(self, order: Order, rows: WorkingSet) -> Admitted:
        """Check every limit and hold the price, or find what was paid for before.

        Nothing is held yet of an order that may shrink and fits the limits only if it does.
        """
        now = self.clock()
        account, key = rows.account(order.account_id), rows.key(order.key_id)
        placed = rows.hold(order.request_id)
        if placed is not None:  # by a commit in doubt
            return _admitted(account, key, placed, now)
        self.check_dates(account, now)
        standing.check(account, key, order.secret_hash, now)
        roll_periods(account, key, now)
        rate.check(account, key, 1 if order.may_shrink else order.queries, now)
        earlier = self._earlier(rows, order, now)
        try:
            hold = earlier or self.hold(rows, order, now)
        except APIError:
            if not order.may_shrink:
                raise
            limits.check(_asked(rows, order, now, least=True))
            return _nothing_held(account, key, order, now)
        rate.take(account, key, order.queries, now)
        charged = None if earlier is None else charge_of(rows, earlier.id)
        return _admitted(account, key, hold, now, charged)

    def settle(
        self, request_id: str, answered: Counts | None, buckets: Collection[int], rows: WorkingSet
    ) -> Charged:
        """Turn a hold into a charge for what was `answered` of it; what was settled stays as it is."""
        hold = rows.hold(request_id)
        if hold is not None and hold.state == "settled":
            charged = charge_of(rows, hold.id)
            assert charged is not None
            return charged
        if hold is None or hold.state != "open":
            raise APIError(
                ErrorCode.DEADLINE_EXCEEDED,
                "the answer took too long and its hold was released; nothing was charged, try again",
                retry_after=1,
            )
        now = self.clock()
        self.check_dates(rows.account(hold.account_id), now)
        if answered is not None:
            shrink(rows, hold, answered)
        charged = self._settle(rows, hold, buckets, now)
        log_finished(rows, hold, now)
        return charged

    def sell(self, order: Order, buckets: Collection[int], rows: WorkingSet) -> Admitted:
        """Admit and settle at once; what was paid for before is not charged again."""
        admitted = self.admit(order, rows)
        hold = rows.hold(order.request_id)
        if hold is None:  # another one paid for it
            return admitted
        if hold.state == "settled":  # by a commit in doubt
            return replace(admitted, charged=charge_of(rows, hold.id))
        return replace(admitted, charged=self._settle(rows, hold, buckets, hold.created_at))

    def look(self, order: Order, rows: WorkingSet) -> Admitted:
        """Make sure that an order may be answered with nothing; it holds and costs nothing."""
        now, account, key = self.clock(), rows.account(order.account_id), rows.key(order.key_id)
        standing.check(account, key, order.secret_hash, now)
        return _nothing_held(account, key, order, now)

    def void(self, hold_id: str, expired_at: int | None, rows: WorkingSet) -> bool:
        """Release a hold that is open, and has expired where that is asked; whether it was."""
        hold = rows.hold(hold_id)
        if hold is None or hold.state != "open":
            return False
        if expired_at is not None and hold.expires_at > expired_at:
            return False  # renewed since it was found
        void(rows, hold, self.clock())
        return True

    def take_tokens(self, account_id: str, key_id: str, queries: int, rows: WorkingSet) -> None:
        """Count queries against the rates that were prepared and not admitted; twice if it is done twice."""
        rate.take(rows.account(account_id), rows.key(key_id), queries, self.clock())

    def take_back_replay(self, hold_id: str, rows: WorkingSet) -> None:
        """Count once less that what a hold paid for was answered again; twice if it is done twice."""
        hold = rows.hold(hold_id)
        if hold is not None and hold.replays > 0:
            hold.replays -= 1

    def check_dates(self, account: Account, now: int) -> None:
        """Make sure that what is charged to the account now would be dated rightly.

        Raises:
            APIError: `not_ready`; this clock is wrong, or one was that wrote the account's books.
        """
        if self._watch is not None:
            self._watch.check()
        if not account.is_ahead(now):
            self._told.discard(account.id)
            return
        if account.id not in self._told:
            self._told.add(account.id)
            _log.error(
                "the books of %s go on to a date ahead of this clock, and nothing is charged to it; set the "
                "clock right, or if it is right run: `vendor accounts repair %s`",
                account.name,
                account.name,
            )
        message = "this account's books have a date in the future, so nothing can be charged; ask the vendor"
        raise APIError(ErrorCode.NOT_READY, message, retry_after=30)

    def hold(self, rows: WorkingSet, order: Order, now: int) -> HoldRow:
        """Check every limit and place a hold."""
        asked = _asked(rows, order, now)
        limits.check(asked)
        hold = HoldRow(
            id=order.request_id,
            account_id=order.account_id,
            key_id=order.key_id,
            project_id=asked.key.project_id or DEFAULT_ID,
            server=BULK if order.is_bulk else self._server,
            state="open",
            model=order.model,
            model_fingerprint=order.model_fingerprint,
            counts=order.counts,
            prices=asked.prices,
            cost_micros=asked.cost_micros,
            idempotency_key=order.idempotency_key,
            body_hash=order.body_hash,
            created_at=now,
            expires_at=order.held_until or now + self._hold_micros,
        )
        rows.add(hold)
        limits.hold(asked)
        return hold

    def charge(self, rows: WorkingSet, hold: HoldRow, buckets: Collection[int], now: int) -> Charged:
        """Write the ledger entry of a hold that was released for it, and count what it used."""
        account, key = rows.account(hold.account_id), rows.key(hold.key_id)
        limited = limited_by(account, key)
        before = [limits.levels(each) for each in limited]
        entry = ledger.charge(account, hold, now)
        rows.charge(entry)
        for each in limited:
            each.queries_used += queries(hold.counts)
            each.spent_micros += hold.cost_micros
        if account.coverage_limit is not None:
            coverage.add(rows.session, account, hold.model_fingerprint, coverage.bits(buckets))
        for each, stood in zip(limited, before, strict=True):
            limits.tell_reached(rows.session, account, stood, self._percents, now, of=each)
        return Charged(entry.seq, entry.entry_hash, entry.created_at, hold.key_id, hold.cost_micros)

    def _settle(self, rows: WorkingSet, hold: HoldRow, buckets: Collection[int], now: int) -> Charged:
        roll_periods(rows.account(hold.account_id), rows.key(hold.key_id), now)
        release(rows, hold, "settled")
        return self.charge(rows, hold, buckets, now)

    def _earlier(self, rows: WorkingSet, order: Order, now: int) -> HoldRow | None:
        """The settled hold that this order repeats, if it does; raises what `ReplayTerms.check` does."""
        if order.idempotency_key is None:
            return None
        project_id = rows.key(order.key_id).project_id or DEFAULT_ID
        hold = rows.live_hold(order.account_id, project_id, order.idempotency_key)
        if hold is None:
            return None
        if self._terms.check(hold, order, now):
            replays.check_counts(hold.counts, order.counts, may_shrink=order.may_shrink)
            hold.replays += 1
            return hold
        void(rows, hold, now)
        return None


def void(rows: WorkingSet, hold: HoldRow, now: int) -> None:
    """Release a hold for which nothing is charged; its account and key are locked in `rows`."""
    release(rows, hold, "voided")
    log_finished(rows, hold, now)


def log_finished(rows: WorkingSet, hold: HoldRow, now: int) -> None:
    """Have the billing log, if there is one, tell of a hold that is settled or released."""
    if billing_log.LOG.isEnabledFor(logging.INFO):
        billing_log.finished(rows.session, hold, now)


def shrink(rows: WorkingSet, hold: HoldRow, counts: Counts) -> None:
    """Hold no more than these, and their price."""
    assert all(number <= hold.counts.get(kind, 0) for kind, number in counts.items())
    cost = cost_micros(counts, hold.prices)
    for each in limited_by(rows.account(hold.account_id), rows.key(hold.key_id)):
        each.queries_held -= queries(hold.counts) - queries(counts)
        each.held_micros -= hold.cost_micros - cost
    hold.counts, hold.cost_micros = counts, cost


def release(rows: WorkingSet, hold: HoldRow, state: str) -> None:
    """Let a hold count against no limit any more, and have another state."""
    hold.state = state
    key = rows.key(hold.key_id)
    for each in limited_by(rows.account(hold.account_id), key):
        each.queries_held -= queries(hold.counts)
        each.held_micros -= hold.cost_micros
    if hold.server != BULK:
        key.requests_held -= 1


def charge_of(rows: WorkingSet, hold_id: str) -> Charged | None:
    """The entry of a settled hold."""
    rows.write()  # it may be of this very transaction
    entry = rows.session.scalars(select(LedgerEntry).where(LedgerEntry.hold_id == hold_id)).one_or_none()
    if entry is None:
        return None
    return Charged(entry.seq, entry.entry_hash, entry.created_at, str(entry.key_id), -entry.amount_micros)


def _asked(rows: WorkingSet, order: Order, now: int, *, least: bool = False) -> Asked:
    """An order at its price, or the `least` that may be left of it."""
    account, key = rows.account(order.account_id), rows.key(order.key_id)
    find_prices = prices.batch if order.is_bulk else prices.current
    found = find_prices(rows.session, account.plan, order.model, now)
    return Asked(account, key, order.least(found) if least else order, found, now)


def _nothing_held(account: Account, key: ApiKey, order: Order, now: int) -> Admitted:
    return Admitted(order.request_id, NOTHING, 0, False, None, rate.status(account, key, now))


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
        prices=hold.prices,
    )
