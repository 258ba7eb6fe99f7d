"""An act: one transaction in which somebody changes the books, and its entry in the audit log."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from vendor_service.audit import log
from vendor_service.audit.log import Facts
from vendor_service.clock import Clock
from vendor_service.database.session import server_time
from vendor_service.errors import WrongClock
from vendor_service.money import thresholds
from vendor_service.money.clock_watch import ClockWatch, against_books, against_server


@dataclass(frozen=True)
class Act:
    """The transaction, who acts (see `audit.actors`), and the clock; see `believe_clock`.

    `percents` are the thresholds of which receivers of events are told.
    """

    session: Session
    actor: str
    clock: Clock
    trust_clock: bool = False
    percents: tuple[int, ...] = thresholds.STANDARD
    watch: ClockWatch | None = None

    @property
    def now(self) -> int:
        """The time, in microseconds since the epoch."""
        return self.clock()

    def record(self, action: str, subject: str, before: Facts | None, after: Facts | None) -> None:
        """Write the act into the audit log; the last thing that an act does."""
        log.append(self.session, self.actor, action, subject[:255], before, after, self.now)

    def believe_clock(self) -> None:
        """Make sure that this machine's clock may be right; raises what `believe_clock` does."""
        believe_clock(self.session, self.clock, trust_clock=self.trust_clock, watch=self.watch)


def believe_clock(
    session: Session, clock: Clock, *, trust_clock: bool, watch: ClockWatch | None = None
) -> None:
    """Make sure that the clock may be right, by its `watch` and by the database server's, if there are any.

    Unless it is to be trusted, the dates in the books are asked as well.

    Raises:
        WrongClock: it cannot be.
    """
    now = clock()
    fault = None if watch is None else watch.fault
    fault = fault or against_server(now, server_time(session))
    # Another account that goes on ahead of it proves nothing; `ledger` looks at the one that is meant.
    if fault is None and not trust_clock:
        fault = against_books(session, now, may_be_behind=False)
    if fault is not None:
        raise WrongClock(fault)
