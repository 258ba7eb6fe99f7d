"""Repair: an account whose books a wrong clock dated ahead is put right, and its ledger says so."""

from dataclasses import dataclass

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session, aliased

from vendor_service.clock import HOUR, to_datetime
from vendor_service.database.tables import Account, ApiKey, LedgerEntry, LedgerTotal, Limited, Project
from vendor_service.money import invoices, ledger, periods, totals
from vendor_service.money.clock_watch import MOST_SKEW


@dataclass(frozen=True)
class Repair:
    """What was done. `redated` entries, from `first_seq` to `last_seq`, now belong to `month`, as the entry
    `by_seq` of the ledger says; `void_invoices` are months that were not over when theirs was issued.
    """

    account: str
    redated: int
    first_seq: int | None
    last_seq: int | None
    month: str | None
    by_seq: int | None
    void_invoices: list[str]
    fields: list[str]

    @property
    def changed(self) -> bool:
        """Whether there was anything to repair."""
        return bool(self.redated or self.void_invoices or self.fields)


def repair(session: Session, account: Account, now: int) -> Repair:
    """Date what is dated ahead of `now` to now, and count the present period anew from the ledger.

    The clock must be right, and this transaction must have locked the account. Nothing is changed where
    nothing is ahead.
    """
    ahead = now + MOST_SKEW
    keys = list(session.scalars(select(ApiKey).where(ApiKey.account_id == account.id)))
    projects = list(session.scalars(select(Project).where(Project.account_id == account.id)))
    owners: list[Account | Project | ApiKey] = [account, *projects, *keys]
    fields = sorted({name for each in owners for name in _put_back(each, now)})
    void = [
        each.month
        for each in invoices.valid(session, account.id)
        if invoices.month_bounds(each.month)[1] > ahead
    ]
    first = _first_ahead(session, account.id, ahead)
    wrong_period = any(each.period_started_at > ahead for each in owners)
    if first is None and not void and account.ledger_at <= ahead and not wrong_period:
        return Repair(account.name, 0, None, None, None, None, [], fields)
    last = account.ledger_seq
    at = account.ledger_at = _last_right(session, account, first or last + 1, now)
    account.period_started_at = 0
    entry = None
    if first is not None or void:
        entry = ledger.redate(
            session, account, first or last + 1, _reason(session, account, first, void, at), at
        )
        session.flush()
        totals.rebuild(session, account.id, at // HOUR)
    _count(session, account, projects, keys, at)
    return Repair(
        account=account.name,
        redated=0 if first is None else last - first + 1,
        first_seq=first,
        last_seq=None if first is None else last,
        month=None if entry is None else f"{to_datetime(at):%Y-%m}",
        by_seq=None if entry is None else entry.seq,
        void_invoices=void,
        fields=[*fields, "ledger_at", "period_started_at", "queries_used", "spent_micros"],
    )


def _put_back(each: Account | Project | ApiKey, now: int) -> list[str]:
    fields = [name for name in ("created_at", "rate_refilled_at") if getattr(each, name) > now + MOST_SKEW]
    for name in fields:
        setattr(each, name, now)
    return fields


def _first_ahead(session: Session, account_id: str, ahead: int) -> int | None:
    """The first entry that belongs to an instant later than `ahead`: so do all that follow it."""
    right = [each.seq for each in totals.redatings(session, account_id) if each.created_at <= ahead]
    later = (LedgerEntry.account_id == account_id, LedgerEntry.created_at > ahead)
    behind = LedgerEntry.seq > max(right, default=0)
    return session.scalar(select(func.min(LedgerEntry.seq)).where(*later, behind))


def _last_right(session: Session, account: Account, first: int, now: int) -> int:
    """The instant that the entries from `first` on are to have: now, but not before what is right."""
    before = session.scalar(
        select(totals.belongs_at(session, account.id)).where(
            LedgerEntry.account_id == account.id, LedgerEntry.seq == first - 1
        )
    )
    closed = [invoices.month_bounds(each.month)[1] for each in invoices.valid(session, account.id)]
    return max(now, before or 0, *(end for end in closed if end <= now + MOST_SKEW), 0)


def _reason(session: Session, account: Account, first: int | None, void: list[str], at: int) -> str:
    month = f"{to_datetime(at):%Y-%m}"
    said = []
    if first is not None:
        dated = session.get_one(LedgerEntry, (account.id, first)).created_at
        said.append(
            f"entries {first} to {account.ledger_seq}, which a wrong clock dated "
            f"{to_datetime(dated):%Y-%m-%d} and later, belong to {month}"
        )
    if void:
        named = ", ".join(void[:8]) + (" and others" if len(void) > 8 else "")
        said.append(f"invoices of {named} are void: these months are not over")
    return "; ".join(said)


def _count(session: Session, account: Account, projects: list[Project], keys: list[ApiKey], at: int) -> None:
    """Count what account, projects and keys used in the period that holds `at`, as the ledger has it now."""
    begun = periods.start(account.quota_period, at)
    sums = (func.sum(LedgerTotal.images + LedgerTotal.texts), func.sum(-LedgerTotal.amount_micros))
    charges = (LedgerTotal.account_id == account.id, LedgerTotal.kind == "charge")
    counted: list[tuple[Limited, list[str] | None]] = [(account, None)]
    counted += [(key, [key.id]) for key in keys]
    counted += [(each, [key.id for key in keys if key.project_id == each.id]) for each in projects]
    for limited, by in counted:
        this_period = select(*sums).where(*charges, LedgerTotal.hour >= begun // HOUR)
        if by is not None:
            this_period = this_period.where(LedgerTotal.key_id.in_(by))
        queries, micros = session.execute(this_period).one()
        given_back = _given_back(session, account.id, begun, by)
        limited.period_started_at = begun
        limited.queries_used = int(queries or 0)
        limited.spent_micros = int(micros or 0) - given_back


def _given_back(session: Session, account_id: str, begun: int, key_ids: list[str] | None) -> int:
    """What was given back of the charges of the period, of some keys if they are named."""
    refunds = aliased(LedgerEntry)
    same = (refunds.account_id == LedgerEntry.account_id, refunds.corrects_seq == LedgerEntry.seq)
    this_period = (
        LedgerEntry.account_id == account_id,
        LedgerEntry.kind == "charge",
        totals.belongs_at(session, account_id) >= begun,
    )
    summed = select(func.sum(refunds.amount_micros)).join_from(LedgerEntry, refunds, and_(*same))
    summed = summed.where(*this_period)
    if key_ids is not None:
        summed = summed.where(LedgerEntry.key_id.in_(key_ids))
    return int(session.scalar(summed) or 0)
