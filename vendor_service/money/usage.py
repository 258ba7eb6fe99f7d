"""The usage and the limits of an account, read from its ledger, its totals and its counters."""

from typing import Any

from sqlalchemy import ColumnElement, Select, Subquery, case, func, literal, select, union_all
from sqlalchemy.orm import Session

from shared.billing import AccountStatus, GroupBy, UsageReport, UsageRow
from shared.projects import DEFAULT_PROJECT
from vendor_service.clock import DAY, HOUR, to_datetime
from vendor_service.database.tables import Account, ApiKey, LedgerEntry, LedgerTotal, Project
from vendor_service.money import currency, periods, rate, totals


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
        coverage_limit=account.coverage_limit,
        buckets_covered=account.buckets_covered,
        currency=currency.current(session),
    )


def usage_report(session: Session, account_id: str, group_by: GroupBy, since: int, until: int) -> UsageReport:
    """Sums of the charges from `since` up to but not including `until`, in microseconds since the epoch.

    Whole hours come from the running totals, what is left of the first and the last hour from the ledger.
    """
    account = session.get_one(Account, account_id)
    if until > account.ledger_at:  # there is nothing behind it, and so its hour may be taken whole
        until = max(since, -(-until // HOUR) * HOUR)
    charges = _charges(session, account, since, until)
    columns = charges.c
    sums = (
        func.sum(columns.entries),
        func.sum(columns.images),
        func.sum(columns.texts),
        func.sum(columns.cost_micros),
    )
    total = _row("total", *session.execute(select(*sums)).one())
    if group_by == "kind":
        rows = _rows_by_kind(session, charges)
    else:
        groups: dict[str, ColumnElement[Any]] = {
            "day": columns.hour // (DAY // HOUR),
            "key": columns.key_id,
            "model": columns.model,
            "project": func.coalesce(Project.name, DEFAULT_PROJECT),
        }
        # By its name: to PostgreSQL the same expression with another parameter is another expression.
        grouped = select(groups[group_by].label("grouping"), *sums).select_from(charges)
        if group_by == "project":  # that of its key, for good
            grouped = grouped.join(ApiKey, ApiKey.id == columns.key_id)
            grouped = grouped.outerjoin(Project, Project.id == ApiKey.project_id)
        grouped = grouped.group_by("grouping").order_by("grouping")
        rows = [_row(_label(group_by, key), *found) for key, *found in session.execute(grouped)]
    return UsageReport(
        account=account.name,
        group_by=group_by,
        rows=rows,
        total=total,
        coverage_limit=account.coverage_limit,
        buckets_covered=account.buckets_covered,
        currency=currency.current(session),
    )


def _charges(session: Session, account: Account, since: int, until: int) -> Subquery:
    first, last = -(-since // HOUR), until // HOUR  # whole hours: from `first` up to but not including `last`
    if first > last:
        return _entries(session, account, since, until).subquery()
    edges = ((since, first * HOUR), (last * HOUR, until))
    unequal = [_entries(session, account, begin, end) for begin, end in edges if begin < end]
    return union_all(_totals(account, first, last), *unequal).subquery()


def _totals(account: Account, first: int, last: int) -> Select[*tuple[Any, ...]]:
    mine = (LedgerTotal.account_id == account.id, LedgerTotal.kind == "charge")
    return select(
        LedgerTotal.hour,
        LedgerTotal.key_id,
        LedgerTotal.model,
        LedgerTotal.entries,
        LedgerTotal.image_requests,
        LedgerTotal.text_requests,
        LedgerTotal.images,
        LedgerTotal.texts,
        LedgerTotal.image_micros,
        LedgerTotal.text_micros,
        (-LedgerTotal.amount_micros).label("cost_micros"),
    ).where(*mine, LedgerTotal.hour >= first, LedgerTotal.hour < last)


def _entries(session: Session, account: Account, since: int, until: int) -> Select[*tuple[Any, ...]]:
    """The same columns, entry by entry, of less than an hour."""
    hours = (LedgerTotal.hour >= since // HOUR, LedgerTotal.hour <= (until - 1) // HOUR)
    ends = select(func.min(LedgerTotal.first_seq), func.max(LedgerTotal.last_seq))
    first, last = session.execute(ends.where(LedgerTotal.account_id == account.id, *hours)).one()
    within = (LedgerEntry.seq >= (first or 0), LedgerEntry.seq <= (last or 0))
    at = totals.belongs_at(session, account.id)
    return select(
        (at // HOUR).label("hour"),
        LedgerEntry.key_id,
        LedgerEntry.model,
        literal(1).label("entries"),
        case((LedgerEntry.images > 0, 1), else_=0).label("image_requests"),
        case((LedgerEntry.texts > 0, 1), else_=0).label("text_requests"),
        LedgerEntry.images,
        LedgerEntry.texts,
        LedgerEntry.image_micros,
        LedgerEntry.text_micros,
        (-LedgerEntry.amount_micros).label("cost_micros"),
    ).where(
        LedgerEntry.account_id == account.id, LedgerEntry.kind == "charge", *within, at >= since, at < until
    )


def _rows_by_kind(session: Session, charges: Subquery) -> list[UsageRow]:
    columns = charges.c
    images, texts = columns.images, columns.texts
    image_sums = (func.sum(columns.image_requests), func.sum(images), func.sum(images * columns.image_micros))
    text_sums = (func.sum(columns.text_requests), func.sum(texts), func.sum(texts * columns.text_micros))
    requests, number, cost = session.execute(select(*image_sums)).one()
    rows = [_row("image", requests, number, 0, cost)]
    requests, number, cost = session.execute(select(*text_sums)).one()
    rows.append(_row("text", requests, 0, number, cost))
    return [row for row in rows if row.requests]


def _label(group_by: GroupBy, key: int | str) -> str:
    return to_datetime(int(key) * DAY).date().isoformat() if group_by == "day" else str(key)


def _row(
    group: str, requests: int | None, images: int | None, texts: int | None, cost: int | None
) -> UsageRow:
    # A sum over no entries is NULL; PostgreSQL's sums are of a decimal type.
    images, texts = int(images or 0), int(texts or 0)
    return UsageRow(
        group=group,
        requests=int(requests or 0),
        images=images,
        texts=texts,
        billed_queries=images + texts,
        cost_micros=int(cost or 0),
    )
