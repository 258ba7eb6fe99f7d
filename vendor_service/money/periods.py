"""Quota periods: a UTC calendar month that begins anew, or the account's whole life."""

from datetime import datetime

from vendor_service.clock import MOST_SKEW, month_start, next_month_start, to_datetime
from vendor_service.database.tables import Account, ApiKey, Limited, limited_by


def start(period: str, now: int) -> int:
    """When the period that holds `now` began; the one period of a `total` quota began with time itself."""
    return month_start(now) if period == "month" else 0


def instant(account: Account, now: int) -> int:
    """The one instant that entries, counters and period of an account have, when the clock says `now`.

    Clocks of several processes differ, and may step back: nothing is dated before what is there, nor into a
    month that was invoiced, nor counted in another period than it is dated into.
    """
    return max(now, account.ledger_at, account.period_started_at)


def is_ahead(account: Account, now: int) -> bool:
    """Whether the account's books go on to a date that clocks which differ a little cannot explain.

    Either this clock is wrong, or one was that wrote them.
    """
    return instant(account, now) > now + MOST_SKEW


def resets_at(account: Account, now: int) -> datetime | None:
    """When the account's counters start anew, or `None` if never."""
    if account.quota_period != "month":
        return None
    return to_datetime(next_month_start(instant(account, now)))


def is_over(limited: Limited, account: Account, now: int) -> bool:
    """Whether the period that the counters of an account, or of a project or key of it, count has ended.

    A clock that steps back ends none.
    """
    return limited.period_started_at < _begun(account, now)


def roll(account: Account, key: ApiKey, now: int) -> None:
    """Start the counters of both, and of the key's project, anew if a new period has begun."""
    begun = _begun(account, now)
    for each in limited_by(account, key):
        if each.period_started_at < begun:
            each.period_started_at = begun
            each.period_seq = account.ledger_seq
            each.queries_used = 0
            each.spent_micros = 0


def _begun(account: Account, now: int) -> int:
    return max(start(account.quota_period, instant(account, now)), account.period_started_at)
