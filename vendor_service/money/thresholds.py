"""Thresholds: what share of quota, spend limit and credit is used, and the events when it reaches another."""

from sqlalchemy.orm import Session

from vendor_service.database.tables import Account, ApiKey, Limited, Project
from vendor_service.webhooks import events
from vendor_service.webhooks.events import EventKind

# In percent.
STANDARD = (50, 80, 100)

# What is used of each limit, and the limit: of quota, spend limit and an account's credit, in this order.
Levels = tuple[tuple[int, int | None], ...]

_KINDS = (EventKind.QUOTA, EventKind.SPEND_LIMIT, EventKind.CREDIT)
_UNITS = ("queries", "micros", "micros")


def levels(limited: Limited) -> Levels:
    """Each limit with what is used of it; of credit, since just after the last top-up."""
    counted = (limited.queries_used, limited.quota), (limited.spent_micros, limited.spend_limit_micros)
    if not isinstance(limited, Account):
        return counted
    base = limited.credit_base_micros
    return (*counted, (0 if base is None else base - (limited.credit_micros or 0), base))


def tell(
    session: Session,
    account: Account,
    before: Levels,
    percents: tuple[int, ...],
    now: int,
    of: Account | Project | ApiKey | None = None,
) -> None:
    """Write an event for each threshold that was not reached before this transaction and is reached in it.

    The thresholds are those of the account's limits, or `of` a project or a key of it.
    The account is locked, so a threshold is reached in exactly one transaction. One that is left again, by a
    refund or a higher limit say, may be reached another time.
    """
    after = levels(account if of is None else of)
    if after == before:
        return
    for kind, unit, (was, former), (used, limit) in zip(_KINDS, _UNITS, before, after, strict=False):
        if limit is None:
            continue
        for percent in percents:
            if 100 * used >= percent * limit and not (former is not None and 100 * was >= percent * former):
                data = {"percent": percent, f"used_{unit}": used, f"limit_{unit}": limit}
                events.emit(session, kind, account, _whose(of) | data, now)


def _whose(limited: Account | Project | ApiKey | None) -> dict[str, str]:
    if isinstance(limited, Project):
        return {"project": limited.name}
    return {"key_id": limited.id} if isinstance(limited, ApiKey) else {}
