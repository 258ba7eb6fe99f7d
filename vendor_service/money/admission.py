"""Admission: the two short transactions around the model, or the one after it, that charge once or never.

Every change of a hold and of the counters of an account, its projects and its keys happens under the lock
of the account's row, so admitting, settling, voiding and sweeping one account never interleave, and of
settling and voiding a hold exactly one wins.
"""

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future, wait
from functools import partial
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from shared.kinds import Counts
from vendor_service.clock import SECOND, Clock, ClockWatch
from vendor_service.database.session import Database
from vendor_service.database.tables import BULK, Account, Hold
from vendor_service.database.working_set import Touched
from vendor_service.database.writer import Writer
from vendor_service.errors import APIError
from vendor_service.money import billing_log, bulk, ledger, limits
from vendor_service.money.bulk import JobRecord, PartRecord
from vendor_service.money.charging import Charging
from vendor_service.money.orders import Admitted, Charged, HeldJob, Job, JobPart, Order
from vendor_service.money.replays import STANDARD, ReplayTerms

# How long a sweep waits for what it voids; the process must soon renew its own holds again.
_SWEEP_SECONDS = 2.0


class Admission:
    """Admits, settles and voids, each in a transaction that it may share with others. Thread-safe.

    A hold that is neither settled nor voided within `hold_seconds` is swept, unless `renew` moved that on:
    so the holds of a process that is gone are released soon, whichever process sweeps. What was paid for is
    answered again on the terms of `replays`. Nothing is charged while the `watch` finds the clock wrong;
    without one the clock is believed. Webhooks are told when what an account has used reaches another of
    the `percents` of a limit.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        hold_seconds: int,
        replays: ReplayTerms = STANDARD,
        watch: ClockWatch | None = None,
        percents: tuple[int, ...] = limits.STANDARD_PERCENTS,
    ) -> None:
        self._database = database
        self._clock = clock
        self._server = secrets.token_hex(16)
        self._hold_micros = hold_seconds * SECOND
        self._charging = Charging(clock, self._server, self._hold_micros, replays, watch, percents)
        self._writer = Writer(database, ledger.write_charges)
        # Holds that ought to be gone, but the database was away or its disk full: `sweep` voids them later.
        self._unwanted: deque[Touched] = deque()

    def close(self) -> None:
        """Finish what was begun."""
        self._writer.close()

    def admit(self, order: Order) -> "Future[Admitted]":
        """Check every limit and hold the price, in one transaction (the first of the two).

        Of an order that may shrink, and fits the limits only if it does, nothing is held yet.

        The future raises `APIError` where a limit is reached, or the idempotency key is in flight, was used
        for another body or is replayed no more; nothing is held then.
        """
        touched = Touched(order.account_id, order.request_id, order.key_id, order.idempotency_key)
        admitting = self._writer.submit(touched, partial(self._charging.admit, order))
        _log_decision(order, admitting)
        # Where the database does not answer, the hold may have been placed all the same.
        admitting.add_done_callback(partial(self._note_failure, Touched(order.account_id, order.request_id)))
        return admitting

    def settle(
        self,
        account_id: str,
        request_id: str,
        buckets: Collection[int] = (),
        answered: Counts | None = None,
    ) -> "Future[Charged]":
        """Turn the hold into a ledger entry (the second transaction); only then may the answer go out.

        `buckets` are those that the answer lies in. They are counted with the charge where the account has a
        coverage limit. Where fewer queries were `answered` than are held, these are charged.

        The future raises `APIError` (`deadline_exceeded`) if the hold was voided meanwhile; nothing is
        charged then. Settling again changes nothing.
        """
        touched = Touched(account_id, request_id)
        return self._writer.submit(touched, partial(self._charging.settle, request_id, answered, buckets))

    def sell(self, order: Order, buckets: Collection[int] = ()) -> "Future[Admitted]":
        """Admit and settle in one transaction what the model has answered already; it is charged then.

        The future raises like the one of `admit`, and nothing is charged then.
        """
        touched = Touched(order.account_id, order.request_id, order.key_id, order.idempotency_key)
        selling = self._writer.submit(touched, partial(self._charging.sell, order, buckets))
        _log_decision(order, selling)
        return selling

    def look(self, order: Order) -> "Future[Admitted]":
        """Make sure that an order may be answered with nothing; raises as `admit` does."""
        touched = Touched(order.account_id, key_id=order.key_id)
        return self._writer.submit(touched, partial(self._charging.look, order))

    def void(self, account_id: str, request_id: str) -> "Future[bool]":
        """Release the hold of a request that is not answered; whether there was one to release.

        If that fails, `sweep` tries again.
        """
        touched = Touched(account_id, request_id)
        voiding = self._writer.submit(touched, partial(self._charging.void, request_id, None))
        voiding.add_done_callback(partial(self._note_failure, touched))
        return voiding

    def take_back_replay(self, account_id: str, request_id: str) -> "Future[None]":
        """Not count a replay that was admitted, and that the vendor itself could not answer."""
        return self._writer.submit(
            Touched(account_id, request_id), partial(self._charging.take_back_replay, request_id)
        )

    def hold_job(self, order: Order, record: JobRecord[Job]) -> "Future[HeldJob[Job]]":
        """Check every limit but the rate, hold the price of a bulk job and write it down, in one transaction.

        The future raises as `admit` does.
        """
        touched = Touched(order.account_id, order.request_id, order.key_id)
        holding = self._writer.submit(touched, partial(bulk.hold_job, self._charging, order, record))
        _log_decision(order, holding)
        return holding

    def settle_part(
        self, account_id: str, hold_id: str, part: JobPart, record: PartRecord
    ) -> "Future[Charged | None]":
        """Charge for a part of a bulk job, release what was held for the rest of it, and write that down.

        The future raises `APIError` where the hold was released meanwhile, or by the `record`; nothing is
        charged then. What nothing was answered of has no charge.
        """
        touched = Touched(account_id, hold_id)
        return self._writer.submit(touched, partial(bulk.settle_part, self._charging, hold_id, part, record))

    def end_job(
        self, account_id: str, hold_id: str, ends: Callable[[Session, Account, int], bool]
    ) -> "Future[bool]":
        """Release what is still held for a bulk job if it `ends` in this transaction; whether it does."""
        return self._writer.submit(
            Touched(account_id, hold_id), partial(bulk.end_job, self._charging, hold_id, ends)
        )

    def take_tokens(self, account_id: str, key_id: str, queries: int) -> "Future[None]":
        """Count queries against the rates of an account and a key that were prepared and not admitted."""
        touched = Touched(account_id, key_id=key_id)
        return self._writer.submit(touched, partial(self._charging.take_tokens, account_id, key_id, queries))

    def renew(self, longest_seconds: int) -> None:
        """Tell that this process lives: its holds last longer, unless they have lasted `longest_seconds`."""
        now = self._clock()
        mine = select(Hold.id).where(Hold.state == "open", Hold.server == self._server)
        young = mine.where(Hold.created_at > now - longest_seconds * SECOND)
        # One that is locked is being settled or voided at this moment: who waits for it may wait in a circle.
        free = young.with_for_update(skip_locked=True)
        with self._database.write() as session:
            session.execute(update(Hold).where(Hold.id.in_(free)).values(expires_at=now + self._hold_micros))

    def sweep(self) -> int:
        """Void the holds that have expired, and what failed to be voided before; how many had expired."""
        for touched in [self._unwanted.popleft() for _ in range(len(self._unwanted))]:
            self.void(touched.account_id, str(touched.hold_id))
        expired = self._void_all(expired_at=self._clock())
        # Those of an account that something has locked are voided whenever it can be; others are not kept.
        done, _ = wait(expired, timeout=_SWEEP_SECONDS)
        return sum(each.result() for each in done if not isinstance(each.exception(), APIError))

    def void_abandoned(self) -> int:
        """Void every open hold of a process that is gone, at the start of its only successor."""
        return sum(each.result() for each in self._void_all(expired_at=None))

    def _note_failure(self, touched: Touched, done: "Future[Any]") -> None:
        failure = CancelledError() if done.cancelled() else done.exception()
        if isinstance(failure, APIError) and failure.code != ErrorCode.OVERLOADED:
            return  # the outcome of the work itself
        if failure is not None:
            self._unwanted.append(touched)

    def _void_all(self, expired_at: int | None) -> "list[Future[bool]]":
        still_open = select(Hold.account_id, Hold.id).where(Hold.state == "open")
        if expired_at is not None:
            still_open = still_open.where(Hold.expires_at <= expired_at)
        else:
            still_open = still_open.where(or_(Hold.server.is_(None), Hold.server != BULK))
        with self._database.read() as session:
            found = session.execute(still_open).all()
        return [
            self._writer.submit(
                Touched(account_id, hold_id), partial(self._charging.void, hold_id, expired_at)
            )
            for account_id, hold_id in found
        ]


def _log_decision(order: Order, deciding: "Future[Admitted] | Future[HeldJob[Any]]") -> None:
    """Have the billing log, if there is one, tell what becomes of an order."""
    if billing_log.LOG.isEnabledFor(logging.INFO):
        began = time.perf_counter()
        deciding.add_done_callback(lambda done: billing_log.decided(order, done, time.perf_counter() - began))
