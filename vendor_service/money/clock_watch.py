"""The watch over the clock: nothing is charged while the clock cannot be right, for it would be misdated."""

import logging
import threading

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from vendor_service.clock import DAY, SECOND, Clock, steady_clock, to_datetime
from vendor_service.database.session import Database, server_time
from vendor_service.database.tables import Account, ApiKey
from vendor_service.errors import APIError

# How far clocks may be apart: those of processes that share books, and one clock from itself.
MOST_SKEW = 300 * SECOND
# Where the newest date in the books is older, the clock is more likely wrong than the vendor rested so long.
LONGEST_REST = 400 * DAY
# A clock that nobody disciplines gains or loses less than this much in a microsecond, and has not stepped.
_DRIFT = 0.001

_log = logging.getLogger(__name__)


class ClockWatch:
    """Compares a clock with one that never steps, and keeps in mind what others say of it. Thread-safe."""

    def __init__(self, clock: Clock, steady: Clock = steady_clock) -> None:
        self._clock = clock
        self._steady = steady
        self._lock = threading.Lock()
        self._compared_at = steady()
        self._apart = clock() - self._compared_at
        self._testimony: str | None = None
        self._told: str | None = None

    def hear(self, testimony: str | None) -> None:
        """Take note of why the clock is wrong by the books, or by another clock; `None`: it is not."""
        self._testimony = testimony

    @property
    def fault(self) -> str | None:
        """Why the clock cannot be right, or `None`; a new reason is logged, and so is the end of it."""
        with self._lock:
            fault = self._step() or self._testimony
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
        step = self._clock() - steady - self._apart
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


class ClockReferences:
    """Other sources of the time: the database's server, where there is one, and the dates in the books.

    The books are asked at the start, and again for as long as they have it that the clock is wrong; not at
    all where the operator trusts the clock. What is dated after the start is no witness, for it is dated by
    this clock. A server that agrees with the clock knows better than they do that it is not behind.
    """

    def __init__(self, database: Database, clock: Clock, watch: ClockWatch, *, trust_clock: bool) -> None:
        self._database = database
        self._clock = clock
        self._watch = watch
        self._ask_books = not trust_clock
        self._newest: int | None = None

    def ask(self) -> None:
        """Compare the clock with them now, and tell the watch.

        Raises:
            APIError: the database does not answer.
        """
        with self._database.read() as session:
            now, server = self._clock(), server_time(session)
            fault = against_server(now, server)
            if self._ask_books and self._newest is None:
                self._newest = newest_date(session, now)
            if fault is None and self._ask_books:
                fault = against_books(session, now, may_be_behind=server is None, newest=self._newest)
                self._ask_books = fault is not None
        self._watch.hear(fault)


def newest_date(session: Session, now: int) -> int | None:
    """The newest date in the books that is not ahead of a clock that says `now`, if there is one."""
    dates = (Account.created_at, Account.ledger_at, ApiKey.created_at, ApiKey.last_used_at)
    newest = [
        session.scalar(select(func.max(date)).where(date <= now + MOST_SKEW, date > 0)) for date in dates
    ]
    return max((date for date in newest if date is not None), default=None)


def against_books(
    session: Session, now: int, *, may_be_behind: bool, newest: int | None = None
) -> str | None:
    """Why a clock that says `now` cannot be right, by the dates in the books; `None` if it can.

    `newest` is what `newest_date` said before; without it, it is asked now.
    """
    furthest = session.execute(
        select(Account.name, Account.ledger_at).order_by(Account.ledger_at.desc()).limit(1)
    ).one_or_none()
    if may_be_behind and furthest is not None and furthest.ledger_at > now + MOST_SKEW:
        return (
            f"the clock says {_time(now)}, and the books of {furthest.name} go on to "
            f"{_time(furthest.ledger_at)}; set the clock right, or if it is right run: "
            f"vendor accounts repair {furthest.name}"
        )
    newest = newest_date(session, now) if newest is None else newest
    if newest is not None and now - newest > LONGEST_REST:
        return (
            f"the clock says {_time(now)}, and the newest date in the books is {_time(newest)}; "
            "set the clock right, or if it is right set VENDOR_TRUST_CLOCK=true"
        )
    return None


def against_server(now: int, server: int | None) -> str | None:
    """Why a clock that says `now` cannot be right, by that of the database's server, if it has one."""
    if server is None or abs(now - server) <= MOST_SKEW:
        return None
    return f"the clock says {_time(now)}, and the database's {_time(server)}; set right the one that is wrong"


def _time(micros: int) -> str:
    return f"{to_datetime(micros):%Y-%m-%d %H:%M:%S} UTC"
