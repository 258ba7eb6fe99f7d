"""Thresholds: what share of quota, spend limit and credit is used, and the events when it reaches another."""

from sqlalchemy.orm import Session

from vendor_service.database.tables import Account
from vendor_service.webhooks import events
from vendor_service.webhooks.events import EventKind

# In percent.
STANDARD = (50, 80, 100)

# What is used of each limit, and the limit: of quota, spend limit and credit, in this order.
Levels = tuple[tuple[int, int | None], tuple[int, int | None], tuple[int, int | None]]

_KINDS = (EventKind.QUOTA, EventKind.SPEND_LIMIT, EventKind.CREDIT)
_UNITS = ("queries", "micros", "micros")


def levels(account: Account) -> Levels:
    """Where an account stands. Credit is used from what it was just after the last top-up."""
    base = account.credit_base_micros
    return (
        (account.queries_used, account.quota),
        (account.spent_micros, account.spend_limit_micros),
        (0 if base is None else base - (account.credit_micros or 0), base),
    )


def tell(session: Session, account: Account, before: Levels, percents: tuple[int, ...], now: int) -> None:
    """Write an event for each threshold that was not reached before this transaction and is reached in it.

    The account is locked, so a threshold is reached in exactly one transaction. One that is left again, by a
    refund or a higher limit say, may be reached another time.
    """
    after = levels(account)
    if after == before:
        return
    for kind, unit, (was, former), (used, limit) in zip(_KINDS, _UNITS, before, after, strict=True):
        if limit is None:
            continue
        for percent in percents:
            if 100 * used >= percent * limit and not (former is not None and 100 * was >= percent * former):
                data = {"percent": percent, f"used_{unit}": used, f"limit_{unit}": limit}
                events.emit(session, kind, account, data, now)
