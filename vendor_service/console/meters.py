"""Meters: how much of each limit is used, when it starts anew, and where it will stand then at this pace."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from shared.billing import AccountStatus
from vendor_service.clock import DAY, from_datetime, month_start
from vendor_service.console import charts
from vendor_service.database.tables import Account
from vendor_service.terms import money


@dataclass(frozen=True)
class Meter:
    """A limit: what is used and agreed, as text, and a drawing; `expected` is by when the period ends."""

    name: str
    used: str
    limit: str
    drawing: Markup
    resets_at: datetime | None = None
    expected: str | None = None
    warning: bool = False


def meters_of(status: AccountStatus, account: Account, now: int) -> list[Meter]:
    """The meters of the limits that an account has."""
    meters = []
    if status.quota is not None:
        meters.append(_of_period("Quota", status.queries_used, status.quota, status, account, now, _queries))
    if status.spend_limit_micros is not None:
        limit = status.spend_limit_micros
        meters.append(_of_period("Spend limit", status.spent_micros, limit, status, account, now, money))
    if status.credit_micros is not None:
        meters.append(_of_credit(status.credit_micros, account.credit_base_micros or 0))
    if status.coverage_limit is not None:
        used, limit = status.buckets_covered, status.coverage_limit
        drawing = charts.meter(f"Coverage: {used} of {limit} buckets", used, limit)
        meters.append(Meter("Coverage", f"{used:,}", f"of {limit:,} buckets, over all time", drawing))
    return meters


def _queries(number: int) -> str:
    return f"{number:,}"


def _of_period(
    name: str,
    used: int,
    limit: int,
    status: AccountStatus,
    account: Account,
    now: int,
    shown: Callable[[int], str],
) -> Meter:
    begin = max(month_start(now), account.created_at)
    expected = _expected(used, begin, status.resets_at, now)
    label = f"{name}: {shown(used)} of {shown(limit)} used"
    period = "a month" if status.quota_period == "month" else "in total"
    return Meter(
        name,
        shown(used),
        f"of {shown(limit)} {period}",
        charts.meter(label, used, limit, expected),
        status.resets_at,
        None if expected is None else shown(expected),
        expected is not None and expected > limit,
    )


def _of_credit(left: int, base: int) -> Meter:
    label = f"Credit: {money(left)} of {money(base)} left"
    drawing = charts.meter(label, max(0, base - left), base or 1)
    return Meter("Credit left", money(left), f"of {money(base)} after the last top-up", drawing)


def _expected(used: int, begin: int, resets_at: datetime | None, now: int) -> int | None:
    """The use expected at the end of the period; `None` before a day has passed."""
    if resets_at is None:
        return None
    end = from_datetime(resets_at)
    if now - begin < DAY or end <= now:
        return None
    return round(used * (end - begin) / (now - begin))
