"""What an account used and where it stands, read from its ledger and its counters."""

from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from shared.billing import AccountStatus, GroupBy, UsageReport, UsageRow
from vendor_service.billing import periods, rate
from vendor_service.clock import DAY, to_datetime
from vendor_service.database.tables import Account, LedgerEntry


def account_status(session: Session, account_id: str, now: int) -> AccountStatus:
    """The account's limits and how much of them is used."""
    account = session.get_one(Account, account_id)
    # The month may have turned since the row was last written, which is for the next admission to write down.
    over = periods.is_over(account, account, now)
    return AccountStatus(
        account=account.name,
        plan=account.plan,
        status="active" if account.status == "active" else "suspended",
        quota=account.quota,
        quota_period="month" if account.quota_period == "month" else "total",
        queries_used=0 if over else account.queries_used,
        queries_held=account.queries_held,
        resets_at=periods.resets_at(account, now),
        spend_limit_micros=account.spend_limit_micros,
        spent_micros=0 if over else account.spent_micros,
        credit_micros=account.credit_micros,
        rate_limit=rate.limit_of(account),
    )


def usage_report(session: Session, account_id: str, group_by: GroupBy, since: int, until: int) -> UsageReport:
    """Sums of the charges from `since` up to but not including `until`, in microseconds since the epoch."""
    charges = (
        LedgerEntry.account_id == account_id,
        LedgerEntry.kind == "charge",
        LedgerEntry.created_at >= since,
        LedgerEntry.created_at < until,
    )
    total = _row("total", *session.execute(select(*_SUMS).where(*charges)).one())
    if group_by == "kind":
        rows = _rows_by_kind(session, charges)
    else:
        group: ColumnElement[Any] = (
            LedgerEntry.created_at // DAY if group_by == "day" else LedgerEntry.key_id.expression
        ).label("grouping")
        # By its name: to PostgreSQL the same expression with another parameter is another expression.
        grouped = select(group, *_SUMS).where(*charges).group_by("grouping").order_by("grouping")
        found = session.execute(grouped)
        rows = [_row(_label(group_by, key), *sums) for key, *sums in found]
    name = session.get_one(Account, account_id).name
    return UsageReport(account=name, group_by=group_by, rows=rows, total=total)


_IMAGE_COST = LedgerEntry.images * LedgerEntry.image_micros
_TEXT_COST = LedgerEntry.texts * LedgerEntry.text_micros
_SUMS = (
    func.count(),
    func.sum(LedgerEntry.images),
    func.sum(LedgerEntry.texts),
    func.sum(-LedgerEntry.amount_micros),
)


def _rows_by_kind(session: Session, charges: tuple[ColumnElement[bool], ...]) -> list[UsageRow]:
    images = select(func.count(), func.sum(LedgerEntry.images), func.sum(_IMAGE_COST))
    texts = select(func.count(), func.sum(LedgerEntry.texts), func.sum(_TEXT_COST))
    requests, number, cost = session.execute(images.where(*charges, LedgerEntry.images > 0)).one()
    rows = [_row("image", requests, number, 0, cost)]
    requests, number, cost = session.execute(texts.where(*charges, LedgerEntry.texts > 0)).one()
    rows.append(_row("text", requests, 0, number, cost))
    return [row for row in rows if row.requests]


def _label(group_by: GroupBy, key: int | str) -> str:
    return to_datetime(int(key) * DAY).date().isoformat() if group_by == "day" else str(key)


def _row(group: str, requests: int, images: int | None, texts: int | None, cost: int | None) -> UsageRow:
    # A sum over no entries is NULL; PostgreSQL's sums are of a decimal type.
    images, texts = int(images or 0), int(texts or 0)
    return UsageRow(
        group=group,
        requests=requests,
        images=images,
        texts=texts,
        billed_queries=images + texts,
        cost_micros=int(cost or 0),
    )
