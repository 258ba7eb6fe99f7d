"""Time as the books keep it, whole microseconds since 1970 in UTC, and the watch over the clock."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from shared.errors import ErrorCode
from vendor_service.errors import APIError

Clock = Callable[[], int]

SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 86_400 * SECOND
# How far clocks may be apart: those of processes that share books, and one clock from itself.
MOST_SKEW = 300 * SECOND
# A clock that nobody disciplines gains or loses less than this much in a microsecond, and has not stepped.
_DRIFT = 0.001
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# What `to_datetime` can tell; with a zone's offset, a moment of the years 1 and 9999 may be beyond.
_FIRST, _LAST = ((each.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND for each in (datetime.min, datetime.max))


_log = logging.getLogger(__name__)


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


def optional_datetime(micros: int | None) -> datetime | None:
    """The same, of a moment that may not have come."""
    return None if micros is None else to_datetime(micros)


def from_datetime(moment: datetime) -> int:
    """Microseconds since the epoch, within what has a date in UTC; a time without a zone is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(_FIRST, min((aware - _EPOCH) // _MICROSECOND, _LAST))


def month_start(micros: int) -> int:
    """The first microsecond of the UTC calendar month that holds this one."""
    return _month_of_day(micros // DAY)


def month_of(micros: int) -> str:
    """The month (UTC) that contains an instant, as invoices name it: 2026-11."""
    return f"{to_datetime(micros):%Y-%m}"


def next_month_start(micros: int) -> int:
    """The first microsecond of the following UTC calendar month."""
    return month_start(month_start(micros) + 32 * DAY)


@lru_cache(maxsize=64)  # each request asks, and days are few
def _month_of_day(day: int) -> int:
    moment = to_datetime(day * DAY)
    return from_datetime(datetime(moment.year, moment.month, 1, tzinfo=UTC))


class ClockWatch:
    """Compares a clock with one that never steps, and hears what the database has against it. Thread-safe.

    While the clock cannot be right nothing is charged, for it would be misdated.
    """

    def __init__(self, clock: Clock, steady: Clock = steady_clock) -> None:
        self.clock = clock
        self._steady = steady
        self._lock = threading.Lock()
        self._compared_at = steady()
        self._apart = clock() - self._compared_at
        self._by_database: str | None = None
        self._told: str | None = None
        self.is_believed = False  # so the database need not be asked any more

    def hear(self, fault: str | None, *, for_good: bool) -> None:
        """Take note of what the database has against the clock, or that it has nothing, now or `for_good`."""
        self._by_database = fault
        self.is_believed = for_good and fault is None

    @property
    def fault(self) -> str | None:
        """Why the clock cannot be right, or `None`; a new reason is logged, and so is the end of it."""
        with self._lock:
            fault = self._step() or self._by_database
            if fault is None and self._told is not None:
                _log.warning("the clock is right again, and requests are charged again")
            elif fault is not None and self._told is None:
                _log.error("%s; nothing is charged until it is put right", fault)
            self._told = fault
        return fault

    def check(self) -> None:
        """Make sure that what is charged now would be dated rightly.

        Raises:
            APIError: `not_ready`; the clock cannot be right.
        """
        if self.fault is not None:
            message = "the vendor's clock is wrong, so nothing can be charged now; try again later"
            raise APIError(ErrorCode.NOT_READY, message, retry_after=30)

    def _step(self) -> str | None:
        steady = self._steady()
        step = self.clock() - steady - self._apart
        if abs(step) > MOST_SKEW:
            way = "forward" if step > 0 else "back"
            return (
                f"the clock was set {way} by {abs(step) // SECOND} s while the vendor ran; set it right, or "
                "restart the vendor if it is right now"
            )
        most = round(max(0, steady - self._compared_at) * _DRIFT)
        self._apart += max(-most, min(most, step))
        self._compared_at = steady
        return None
