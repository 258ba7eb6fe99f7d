"""Quota periods: a UTC calendar month that begins anew, or the account's whole life."""

from datetime import datetime

from vendor_service.clock import month_start, next_month_start, to_datetime
from vendor_service.database.tables import Account


def start(period: str, now: int) -> int:
    """When the period that holds `now` began; the one period of a `total` quota began with time itself."""
    return month_start(now) if period == "month" else 0


def resets_at(account: Account, now: int) -> datetime | None:
    """When the account's counters start anew, or `None` if never."""
    return to_datetime(next_month_start(now)) if account.quota_period == "month" else None


def is_over(account: Account, now: int) -> bool:
    """Whether the period that the counters count has ended. A clock that steps back ends none."""
    return start(account.quota_period, now) > account.period_started_at


def roll(account: Account, now: int) -> None:
    """Start the counters anew if a new period has begun."""
    if is_over(account, now):
        account.period_started_at = start(account.quota_period, now)
        account.queries_used = 0
        account.spent_micros = 0
