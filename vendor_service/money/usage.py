"""The usage and the limits of an account, read from its ledger, its totals and its counters."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from shared.billing import AccountStatus, GroupBy, UsageReport, UsageRow
from shared.kinds import KINDS, count_fields, queries
from shared.projects import DEFAULT_PROJECT
from vendor_service.clock import DAY, HOUR, to_datetime
from vendor_service.database.tables import Account, LedgerEntry, LedgerTotal, Project
from vendor_service.database.view import DEFAULT_ID, View
from vendor_service.money import currency, ledger, rate

_HOURS_A_DAY = DAY // HOUR
# What each grouping goes by in the totals.
_GROUPED: Mapping[GroupBy, ColumnElement[Any]] = {
    "day": LedgerTotal.hour // _HOURS_A_DAY,
    "key": LedgerTotal.key_id.expression,
    "kind": LedgerTotal.sold.expression,
    "model": LedgerTotal.model.expression,
    "project": LedgerTotal.project_id.expression,
}


def account_status(session: Session, view: View, now: int) -> AccountStatus:
    """The limits of the account, or of the project in view, and how much of them is used.

    The default project has the account's limits. Where there is such a limit it is told what all used of it,
    and otherwise what it used itself.
    """
    account = session.get_one(Account, view.account_id)
    project = session.get_one(Project, view.project_id) if view.project_id else None
    limited = project or account
    used = _counted(limited, account, now)
    if view.project_id == DEFAULT_ID:
        mine = Project.account_id == account.id
        others = [_counted(each, account, now) for each in session.scalars(select(Project).where(mine))]
        if account.quota is None:
            used["queries_used"] -= sum(each["queries_used"] for each in others)
            used["queries_held"] -= sum(each["queries_held"] for each in others)
        if account.spend_limit_micros is None:
            used["spent_micros"] -= sum(each["spent_micros"] for each in others)
    return AccountStatus(
        account=account.name,
        plan=account.plan,
        status=account.status,  # type: ignore[arg-type]
        quota=limited.quota,
        quota_period="month" if account.quota_period == "month" else "total",
        resets_at=account.resets_at(now),
        spend_limit_micros=limited.spend_limit_micros,
        credit_micros=account.credit_micros,
        rate_limit=rate.limit_of(limited),
        coverage_limit=account.coverage_limit,
        buckets_covered=_covered(account, view),
        currency=currency.current(session),
        project=None if view.is_whole else DEFAULT_PROJECT if project is None else project.name,
        **used,
    )


def _counted(limited: Account | Project, account: Account, now: int) -> dict[str, int]:
    # The month may have turned since the row was last written, which is for the next admission to write down.
    over = limited.is_period_over(account, now)
    return {
        "queries_used": 0 if over else limited.queries_used,
        "queries_held": limited.queries_held,
        "spent_micros": 0 if over else limited.spent_micros,
    }


def _covered(account: Account, view: View) -> int:
    return account.buckets_covered if view.is_whole or account.coverage_limit is not None else 0


def usage_report(session: Session, view: View, group_by: GroupBy, since: int, until: int) -> UsageReport:
    """Sums of the charges from `since` up to but not including `until`, in microseconds since the epoch.

    Whole hours come from the running totals, what is left of the first and the last hour from the ledger.
    """
    account = session.get_one(Account, view.account_id)
    if until > account.ledger_at:  # there is nothing behind it, and so its hour may be taken whole
        until = max(since, -(-until // HOUR) * HOUR)
    groups: dict[Any, _Used] = defaultdict(_Used)
    for line in _lines(session, view, group_by, since, until):
        groups[line.group].add(line)
    total = _Used()
    for each in groups.values():
        total.merge(each)
    if group_by == "kind":  # a request of several kinds is one of each
        rows = [groups[kind].row(kind, groups[kind].of_kind) for kind in KINDS if kind in groups]
    else:
        rows = _labelled(session, view, group_by, groups)
    return UsageReport(
        account=account.name,
        group_by=group_by,
        rows=rows,
        total=total.row("total", total.requests),
        coverage_limit=account.coverage_limit,
        buckets_covered=_covered(account, view),
        currency=currency.current(session),
    )


class _Line(NamedTuple):
    """Some charges of a group, as far as they sold one kind; `requests` are those that sold some of it."""

    group: Any
    sold: Any
    entries: int
    requests: int
    quantity: int
    cost_micros: int


@dataclass
class _Used:
    requests: int = 0
    of_kind: int = 0
    counts: Counter[Any] = field(default_factory=Counter)
    cost_micros: int = 0

    def add(self, line: _Line) -> None:
        self.requests += line.entries
        self.of_kind += line.requests
        self.counts[line.sold] += line.quantity
        self.cost_micros += line.cost_micros

    def merge(self, other: "_Used") -> None:
        self.requests += other.requests
        self.counts += other.counts
        self.cost_micros += other.cost_micros

    def row(self, group: str, requests: int) -> UsageRow:
        return UsageRow(
            group=group,
            requests=requests,
            billed_queries=queries(self.counts),
            cost_micros=self.cost_micros,
            **count_fields(self.counts),
        )


def _lines(session: Session, view: View, group_by: GroupBy, since: int, until: int) -> Iterator[_Line]:
    first, last = -(-since // HOUR), until // HOUR  # whole hours: from `first` up to but not including `last`
    edges = [(since, until)] if first > last else [(since, first * HOUR), (last * HOUR, until)]
    if first < last:
        yield from _of_hours(session, view, group_by, first, last)
    for begin, end in edges:
        if begin < end:
            yield from _of_entries(session, view, group_by, begin, end)


def _of_hours(session: Session, view: View, group_by: GroupBy, first: int, last: int) -> Iterator[_Line]:
    mine = (view.rows(LedgerTotal), LedgerTotal.kind == "charge")
    sums = [func.sum(column) for column in (LedgerTotal.entries, LedgerTotal.requests, LedgerTotal.quantity)]
    # By its name: to PostgreSQL the same expression with another parameter is another expression.
    found = select(
        _GROUPED[group_by].label("grouping"), LedgerTotal.sold, *sums, -func.sum(LedgerTotal.amount_micros)
    ).where(*mine, LedgerTotal.hour >= first, LedgerTotal.hour < last)
    for group, sold, *summed in session.execute(found.group_by("grouping", LedgerTotal.sold)):
        yield _Line(group, sold, *map(int, summed))


def _of_entries(session: Session, view: View, group_by: GroupBy, since: int, until: int) -> Iterator[_Line]:
    """The same of less than an hour, entry by entry."""
    hours = (LedgerTotal.hour >= since // HOUR, LedgerTotal.hour <= (until - 1) // HOUR)
    ends = select(func.min(LedgerTotal.first_seq), func.max(LedgerTotal.last_seq))
    first, last = session.execute(ends.where(view.rows(LedgerTotal), *hours)).one()
    entries = select(*LedgerEntry.__table__.columns).where(
        view.rows(LedgerEntry),
        LedgerEntry.seq >= (first or 0),
        LedgerEntry.seq <= (last or 0),
        LedgerEntry.kind == "charge",
        LedgerEntry.created_at >= since,
        LedgerEntry.created_at < until,
    )
    summed: ledger.Totals = {}
    for entry in session.execute(entries.order_by(LedgerEntry.seq)):
        ledger.add_to_totals(summed, entry)
    for key, sums in summed.items():
        groups = {"day": key.hour // _HOURS_A_DAY, "kind": key.sold, "model": key.model}
        group = (groups | {"key": key.key_id, "project": key.project_id})[group_by]
        yield _Line(group, key.sold, sums.entries, sums.requests, sums.quantity, -sums.amount_micros)


def _labelled(session: Session, view: View, group_by: GroupBy, groups: Mapping[Any, _Used]) -> list[UsageRow]:
    if group_by == "day":
        labels = {day: to_datetime(int(day) * DAY).date().isoformat() for day in groups}
    elif group_by == "project":
        named = select(Project.id, Project.name).where(Project.account_id == view.account_id)
        labels = {DEFAULT_ID: DEFAULT_PROJECT} | {each.id: each.name for each in session.execute(named)}
    else:
        labels = {group: str(group) for group in groups}
    used = {labels[group]: each for group, each in groups.items()}
    return [each.row(label, each.requests) for label, each in sorted(used.items())]
