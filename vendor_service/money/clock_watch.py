"""The watch over the clock: nothing is charged while the clock cannot be right, for it would be misdated."""

import logging
import threading

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from vendor_service.clock import DAY, MOST_SKEW, SECOND, Clock, steady_clock, to_datetime
from vendor_service.database.session import Database, server_time
from vendor_service.database.tables import Account
from vendor_service.errors import APIError

# Where the newest date in the books is older, the clock is more likely wrong than the vendor rested so long.
LONGEST_REST = 400 * DAY
# A clock that nobody disciplines gains or loses less than this much in a microsecond, and has not stepped.
_DRIFT = 0.001

_log = logging.getLogger(__name__)


class ClockWatch:
    """Compares a clock with one that never steps, and with what the database knows. Thread-safe."""

    def __init__(self, clock: Clock, steady: Clock = steady_clock) -> None:
        self._clock = clock
        self._steady = steady
        self._lock = threading.Lock()
        self._compared_at = steady()
        self._apart = clock() - self._compared_at
        self._by_database: str | None = None
        self._books_agree = False
        self._told: str | None = None

    def ask(self, database: Database, *, trust_clock: bool) -> None:
        """Compare the clock with that of the database's server.

        SQLite has no server: there it is the dates in the books, until they have nothing against the clock.
        Later ones are by this clock. They are not asked where the operator trusts it.

        Raises:
            APIError: the database does not answer.
        """
        if self._books_agree:
            return
        with database.read() as session:
            self._by_database = against_database(session, self._clock(), trust_clock=trust_clock)
        self._books_agree = database.embedded and self._by_database is None

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


def against_database(
    session: Session, now: int, *, trust_clock: bool, may_be_behind: bool = True
) -> str | None:
    """Why a clock that says `now` cannot be right: by the database's server, or by the dates in the books.

    The books are asked where there is no server, and not if the operator trusts the clock. Unless it
    `may_be_behind`, an account that goes on ahead of the clock says nothing against it.
    """
    server = server_time(session)
    if server is None:
        return None if trust_clock else _against_books(session, now, may_be_behind=may_be_behind)
    if abs(now - server) <= MOST_SKEW:
        return None
    return f"the clock says {_time(now)}, and the database's {_time(server)}; set right the one that is wrong"


def _against_books(session: Session, now: int, *, may_be_behind: bool) -> str | None:
    found = select(Account.name, Account.ledger_at).order_by(Account.ledger_at.desc()).limit(1)
    furthest = session.execute(found).one_or_none()
    if may_be_behind and furthest is not None and furthest.ledger_at > now + MOST_SKEW:
        return (
            f"the clock says {_time(now)}, and the books of {furthest.name} go on to "
            f"{_time(furthest.ledger_at)}; set the clock right, or if it is right run: "
            f"vendor accounts repair {furthest.name}"
        )
    newest = session.scalar(select(func.max(Account.ledger_at)).where(Account.ledger_at <= now + MOST_SKEW))
    if newest is not None and now - newest > LONGEST_REST:
        return (
            f"the clock says {_time(now)}, and the newest date in the books is {_time(newest)}; "
            "set the clock right, or if it is right set VENDOR_TRUST_CLOCK=true"
        )
    return None


def _time(micros: int) -> str:
    return f"{to_datetime(micros):%Y-%m-%d %H:%M:%S} UTC"
