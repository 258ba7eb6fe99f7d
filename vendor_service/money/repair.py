"""Repair: an account whose books a wrong clock dated ahead goes on at the right date."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from vendor_service.clock import to_datetime
from vendor_service.database.tables import Account, ApiKey, FinalInvoice, LedgerEntry, Project, period_start
from vendor_service.errors import OperatorError
from vendor_service.money import invoices, payments
from vendor_service.money.verification import recount


@dataclass(frozen=True)
class Repair:
    """The repair of an account, recorded by the entry `by_seq`; `None` where nothing was wrong."""

    account: str
    by_seq: int | None
    reason: str | None


def repair(session: Session, account: Account, now: int) -> Repair:
    """Let the books of an account go on from now, if they are ahead of it; an adjustment of nothing says so.

    The clock must be right, and this transaction must have locked the account. What a wrong clock dated keeps
    its date, and is on the invoice of its month; what was used with it counts in the present quota period.

    Raises:
        OperatorError: a month that is not over was invoiced by the wrong clock.
    """
    if not account.is_ahead(now):
        return Repair(account.name, None, None)
    last = session.scalar(select(func.max(FinalInvoice.month)).where(FinalInvoice.account_id == account.id))
    if last is not None and invoices.month_bounds(last)[1] > now:
        raise OperatorError(
            f"the invoice of {account.name} for {last} is final, and that month is not over; restore a "
            "backup, or wait until it is"
        )
    until = to_datetime(account.instant(now))
    _reopen_period(session, account, now)
    account.ledger_at = now
    reason = f"a wrong clock dated entries up to {until:%Y-%m-%d}; they go on from the right date"
    entry = payments.note(session, account, reason, now)
    recount(session, account)
    return Repair(account.name, entry.seq, reason)


def count_period(session: Session, account: Account, now: int) -> None:
    """Count what was used of the period that the account has by now, as the ledger tells it.

    This transaction must have locked the account.
    """
    begun = period_start(account.quota_period, account.instant(now))
    last_before = _last_before(session, account, begun)
    for each in _limited(session, account):
        each.period_started_at, each.period_seq = begun, last_before
    session.flush()
    recount(session, account)


def _reopen_period(session: Session, account: Account, now: int) -> None:
    """Let counters that a wrong clock began anew be those of the period that holds `now`."""
    begun = period_start(account.quota_period, now)
    last_before = _last_before(session, account, begun)
    for each in _limited(session, account):
        each.created_at = min(each.created_at, now)
        if each.period_started_at > begun:
            each.period_started_at, each.period_seq = begun, last_before


def _last_before(session: Session, account: Account, moment: int) -> int:
    """The number of the last entry of the ledger before a moment."""
    before = (LedgerEntry.account_id == account.id, LedgerEntry.created_at < moment)
    return session.scalar(select(func.max(LedgerEntry.seq)).where(*before)) or 0


def _limited(session: Session, account: Account) -> Iterator[Account | Project | ApiKey]:
    """The account, its projects and its keys."""
    yield account
    yield from session.scalars(select(Project).where(Project.account_id == account.id))
    yield from session.scalars(select(ApiKey).where(ApiKey.account_id == account.id))
