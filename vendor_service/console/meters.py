"""Meters: how much of each limit is used, when it starts anew, and where it will stand then at this pace."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from shared.billing import AccountStatus
from vendor_service.clock import DAY, from_datetime, month_start
from vendor_service.database.tables import Account
from vendor_service.terms import money

_CENT = 10_000


@dataclass(frozen=True)
class Meter:
    """A limit, and how much of it is used and `expected` by when the period ends, which `shown` writes."""

    name: str
    used: int
    limit: int
    unit: str = ""
    shown: Callable[[int], str] = money
    resets_at: datetime | None = None
    expected: int | None = None
    left: str = ""


def meters_of(status: AccountStatus, account: Account, now: int) -> list[Meter]:
    """The meters of the limits that an account has."""
    meters = []
    period = "a month" if status.quota_period == "month" else "in total"
    begin, resets_at = max(month_start(now), account.created_at), status.resets_at
    if status.quota is not None:
        expected = expected_by_end(status.queries_used, begin, resets_at, now)
        meters.append(
            Meter(
                "Quota", status.queries_used, status.quota, f"queries {period}", _count, resets_at, expected
            )
        )
    if status.spend_limit_micros is not None:
        expected = to_the_cent(expected_by_end(status.spent_micros, begin, resets_at, now))
        meters.append(
            Meter(
                "Spend limit",
                status.spent_micros,
                status.spend_limit_micros,
                period,
                money,
                resets_at,
                expected,
            )
        )
    if status.credit_micros is not None:
        left, base = status.credit_micros, account.credit_base_micros or 0
        used = max(0, base - left)
        meters.append(Meter("Credit", used, base, left=f"{money(left)} left of the last top-up"))
    if status.coverage_limit is not None:
        meters.append(
            Meter(
                "Coverage", status.buckets_covered, status.coverage_limit, "buckets, over all time,", _count
            )
        )
    return meters


def to_the_cent(micros: int | None) -> int | None:
    """An expected amount without the digits that nobody can foresee, where it has whole cents."""
    return micros if micros is None or micros < _CENT else round(micros, -4)


def _count(number: int) -> str:
    return f"{number:,}"


def expected_by_end(used: int, begin: int, resets_at: datetime | None, now: int) -> int | None:
    """The use expected at the end of a period, at the pace since it began; `None` before a day has passed."""
    if resets_at is None:
        return None
    end = from_datetime(resets_at)
    if now - begin < DAY or end <= now:
        return None
    return round(used * (end - begin) / (now - begin))
