"""An act: one transaction in which somebody changes the books, and its entry in the audit log."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from vendor_service.audit import log
from vendor_service.audit.log import Facts
from vendor_service.clock import Clock
from vendor_service.errors import WrongClock
from vendor_service.money import thresholds
from vendor_service.money.clock_watch import ClockWatch, against_database


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
    """Make sure that the clock may be right, by its `watch` and by what the database knows.

    Raises:
        WrongClock: it cannot be.
    """
    fault = None if watch is None else watch.fault
    # Another account that goes on ahead of it proves nothing; `ledger` looks at the one that is meant.
    fault = fault or against_database(session, clock(), trust_clock=trust_clock, may_be_behind=False)
    if fault is not None:
        raise WrongClock(fault)
