"""Bulk jobs: their price is held when they begin, and charged part by part, each piece in one transaction."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from shared.kinds import cost_micros, queries
from vendor_service.database.tables import BULK, Account, roll_periods
from vendor_service.database.working_set import HoldRow, WorkingSet
from vendor_service.errors import APIError
from vendor_service.money import standing
from vendor_service.money.charging import Charging, charge_of, log_finished, shrink, void
from vendor_service.money.orders import Admitted, Charged, HeldJob, Job, JobPart, Order

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


def hold_job(charging: Charging, order: Order, record: JobRecord[Job], rows: WorkingSet) -> HeldJob[Job]:
    """Check every limit but the rate, hold the price of a bulk job and write it down."""
    found = record.found(rows.session)
    if found is not None:  # its hold is this order's own after a commit in doubt
        return HeldJob(found, _admitted(order, rows.hold(order.request_id)))
    now = charging.clock()
    account, key = rows.account(order.account_id), rows.key(order.key_id)
    charging.check_dates(account, now)
    standing.check(account, key, order.secret_hash, now)
    roll_periods(account, key, now)
    hold = charging.hold(rows, order, now)
    rows.write()  # the job refers to it
    return HeldJob(record.write(rows.session, hold, now), _admitted(order, hold))


def settle_part(
    charging: Charging, hold_id: str, part: JobPart, record: PartRecord, rows: WorkingSet
) -> Charged | None:
    """Charge for a part of a bulk job, and release what was held for the rest of it."""
    if record.found(rows.session):
        return charge_of(rows, part.request_id)
    hold = rows.hold(hold_id)
    if hold is None or hold.state != "open":
        raise APIError(ErrorCode.DEADLINE_EXCEEDED, "the job has ended, and nothing more is charged for it")
    now = charging.clock()
    account, key = rows.account(hold.account_id), rows.key(hold.key_id)
    charging.check_dates(account, now)
    roll_periods(account, key, now)
    shrink(rows, hold, {kind: number - part.held.get(kind, 0) for kind, number in hold.counts.items()})
    charged = None
    if queries(part.answered):
        done = _settled(hold, part, now)
        rows.add(done)
        charged = charging.charge(rows, done, part.buckets, now)
        log_finished(rows, done, now)
        rows.write()  # the record refers to it
    if record.write(rows.session, account, charged, now):
        release_job(rows, hold, now)
    return charged


def end_job(
    charging: Charging, hold_id: str, ends: Callable[[Session, Account, int], bool], rows: WorkingSet
) -> bool:
    """Release what is still held for a bulk job, if it `ends` now; whether it does."""
    hold, now = rows.hold(hold_id), charging.clock()
    if hold is None or not ends(rows.session, rows.account(hold.account_id), now):
        return False
    release_job(rows, hold, now)
    return True


def release_job(rows: WorkingSet, hold: HoldRow, now: int) -> None:
    """Release what is still held for a bulk job that has ended; its account and key are locked in `rows`."""
    if hold.state == "open":
        void(rows, hold, now)


def _admitted(order: Order, hold: HoldRow | None) -> Admitted:
    """The terms of a job's order; without a hold of its own, it found a job of before."""
    cost = 0 if hold is None else hold.cost_micros
    return Admitted(order.request_id, order.counts, cost, hold is None, None, None)


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
