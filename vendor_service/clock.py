"""Time as the books keep it: whole microseconds since 1970 in UTC, exact in every database and every hash."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

Clock = Callable[[], int]

SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 86_400 * SECOND
# How far clocks may be apart: those of processes that share books, and one clock from itself.
MOST_SKEW = 300 * SECOND
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# What `to_datetime` can tell; with a zone's offset, a moment of the years 1 and 9999 may be beyond.
_FIRST, _LAST = ((each.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND for each in (datetime.min, datetime.max))


def system_clock() -> int:
    """The time now, in microseconds since the epoch."""
    return time.time_ns() // 1_000


def steady_clock() -> int:
    """Microseconds since some moment: they go on as time does, whatever the system's clock is set to."""
    # Linux's boot time goes on while the machine sleeps, as the system's clock does.
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000


def to_datetime(micros: int) -> datetime:
    """The UTC time that so many microseconds since the epoch are."""
    return _EPOCH + timedelta(microseconds=micros)


def from_datetime(moment: datetime) -> int:
    """Microseconds since the epoch, within what has a date in UTC; a time without a zone is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(_FIRST, min((aware - _EPOCH) // _MICROSECOND, _LAST))


def month_start(micros: int) -> int:
    """The first microsecond of the UTC calendar month that holds this one."""
    return _month_of_day(micros // DAY)


def next_month_start(micros: int) -> int:
    """The first microsecond of the following UTC calendar month."""
    return month_start(month_start(micros) + 32 * DAY)


@lru_cache(maxsize=64)  # each request asks, and days are few
def _month_of_day(day: int) -> int:
    moment = to_datetime(day * DAY)
    return from_datetime(datetime(moment.year, moment.month, 1, tzinfo=UTC))
