"""Checks of the clock: by the time of the database's server, or by the dates in the books."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from vendor_service.clock import DAY, MOST_SKEW, ClockWatch, to_datetime
from vendor_service.database.session import Database, server_time
from vendor_service.database.tables import Account

# Where the newest date in the books is older, the clock is more likely wrong than the vendor rested so long.
LONGEST_REST = 400 * DAY


def ask_database(watch: ClockWatch, database: Database, *, trust_clock: bool) -> None:
    """Have a watch compare its clock with that of the database's server.

    SQLite has no server: there it is the dates in the books, until they have nothing against the clock.
    Later ones are by this clock. They are not asked where the operator trusts it.

    Raises:
        APIError: the database does not answer.
    """
    if watch.is_believed:
        return
    with database.read() as session:
        fault = against_database(session, watch.clock(), trust_clock=trust_clock)
    watch.hear(fault, for_good=database.embedded)


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
            f"`vendor accounts repair {furthest.name}`"
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
