"""Spending: sums of the running totals by day and by what entries have in common, of one view or of all."""

from dataclasses import dataclass
from datetime import date
from typing import Literal

from sqlalchemy import ColumnElement, Select, case, func, select
from sqlalchemy.orm import Session

from shared.projects import DEFAULT_PROJECT
from vendor_service.clock import DAY, HOUR, to_datetime
from vendor_service.database.tables import Account, LedgerTotal, Project
from vendor_service.database.view import View

Group = Literal["key", "model", "project", "account"]

_COLUMNS: dict[Group, ColumnElement[str]] = {
    "key": LedgerTotal.key_id.expression,
    "model": LedgerTotal.model.expression,
    "project": func.coalesce(Project.name, DEFAULT_PROJECT),
    "account": Account.name.expression,
}
_HOURS_A_DAY = DAY // HOUR


@dataclass(frozen=True)
class Spent:
    """Charges, refunds and corrections of one group, in micro-units; charges are positive here."""

    group: str
    requests: int = 0
    queries: int = 0
    charged_micros: int = 0
    refunded_micros: int = 0
    adjusted_micros: int = 0

    @property
    def net_micros(self) -> int:
        """The charges after refunds and adjustments."""
        return self.charged_micros - self.refunded_micros - self.adjusted_micros


def by_day(session: Session, view: View | None, first: date, last: date) -> list[Spent]:
    """A row for every day from `first` to `last`, in UTC, also for those without entries."""
    day = (LedgerTotal.hour // _HOURS_A_DAY).label("day")
    found = _sums(view, first, last).add_columns(day).group_by("day")
    rows = {int(each.day): each for each in session.execute(found)}
    spent = []
    for number in range(_day(first), _day(last) + 1):
        label = to_datetime(number * DAY).date().isoformat()
        row = rows.get(number)
        spent.append(Spent(label) if row is None else Spent(label, *map(int, row[:5])))
    return spent


def by_group(session: Session, view: View | None, group: Group, first: date, last: date) -> list[Spent]:
    """A row a key, model, project or account with entries on these days, the largest charges first.

    Keys are named by their ids, projects and accounts by their names. Entries without a key or a model are
    left out.
    """
    column = _COLUMNS[group].label("grouping")
    found = _sums(view, first, last).add_columns(column).where(column != "").group_by("grouping")
    if group == "account":
        found = found.join(Account, Account.id == LedgerTotal.account_id)
    elif group == "project":
        found = found.outerjoin(Project, Project.id == LedgerTotal.project_id)
    spent = [Spent(each.grouping, *map(int, each[:5])) for each in session.execute(found)]
    return sorted(spent, key=lambda each: (-each.charged_micros, each.group))


def _sums(view: View | None, first: date, last: date) -> Select[*tuple[int, ...]]:
    kind, amount = LedgerTotal.kind, LedgerTotal.amount_micros
    columns = (
        func.sum(case((kind == "charge", LedgerTotal.entries), else_=0)),
        func.sum(LedgerTotal.quantity),
        -func.sum(case((kind == "charge", amount), else_=0)),
        func.sum(case((kind == "refund", amount), else_=0)),
        func.sum(case((kind == "adjustment", amount), else_=0)),
    )
    hours = (_day(first) * _HOURS_A_DAY, (_day(last) + 1) * _HOURS_A_DAY)
    found = select(*columns).where(LedgerTotal.hour >= hours[0], LedgerTotal.hour < hours[1])
    return found if view is None else found.where(view.rows(LedgerTotal))


def _day(day: date) -> int:
    return (day - date(1970, 1, 1)).days
