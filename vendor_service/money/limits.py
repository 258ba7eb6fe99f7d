"""Limits: whether an account and a key may ask, and pay for, what an order asks; and the share that is used.

`LIMITS` is the table of what there is to be within, in the order in which it is asked. The rate is not in it,
since what was paid for and is asked again counts against the rate as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from shared.kinds import UnitPrices, cost_micros
from vendor_service.database.tables import Account, ApiKey, Limited, Project, limited_by
from vendor_service.database.view import NO_PROJECT
from vendor_service.errors import APIError
from vendor_service.money.orders import Order
from vendor_service.webhooks import events
from vendor_service.webhooks.events import EventKind

# The shares of a limit that receivers of events are told of, in percent.
STANDARD_PERCENTS = (50, 80, 100)


@dataclass(frozen=True)
class Asked:
    """An order, its prices, and who asks it; all counters are those of the present period."""

    account: Account
    key: ApiKey
    order: Order
    prices: UnitPrices
    now: int

    @cached_property
    def cost_micros(self) -> int:
        """What the order costs."""
        return cost_micros(self.order.counts, self.prices)


Limit = Callable[[Asked], APIError | None]


def check(asked: Asked) -> None:
    """Make sure that an order fits what is left of every limit.

    Raises:
        APIError: the error of the first limit that does not allow it.
    """
    for limit in LIMITS:
        if (error := limit(asked)) is not None:
            raise error


def hold(asked: Asked) -> None:
    """Count an order, which was checked before, against every limit until it is settled or released."""
    for limited in limited_by(asked.account, asked.key):
        limited.queries_held += asked.order.queries
        limited.held_micros += asked.cost_micros
    if not asked.order.is_bulk:  # a bulk job is no request in flight
        asked.key.requests_held += 1


def named(limited: Limited) -> str:
    """The name of an account, a project or a key in refusals."""
    if isinstance(limited, Project):
        return f"the project {limited.name}"
    return "this key" if isinstance(limited, ApiKey) else "this account"


def _max_cost(asked: Asked) -> APIError | None:
    most = asked.order.max_cost_micros
    if most is None or asked.cost_micros <= most:
        return None
    message = f"this request costs {asked.cost_micros} micro-units; x-max-cost-micros is {most}"
    return APIError(ErrorCode.MAX_COST_EXCEEDED, message)


def _quota(asked: Asked) -> APIError | None:
    for limited in limited_by(asked.account, asked.key):
        left, queries = limited.quota_left, asked.order.queries
        if left is not None and queries > left:
            message = f"this request asks {queries} queries; {named(limited)} has {left} left of its quota"
            return APIError(
                ErrorCode.QUOTA_EXHAUSTED,
                f"{message} of {limited.quota}",
                resets_at=asked.account.resets_at(asked.now),
            )
    return None


def _spend_limit(asked: Asked) -> APIError | None:
    for limited in limited_by(asked.account, asked.key):
        left, cost = limited.spend_limit_left, asked.cost_micros
        if left is not None and cost > left:
            message = f"this request costs {cost} micro-units; {named(limited)} has {left} left of its spend"
            return APIError(
                ErrorCode.SPEND_LIMIT_REACHED,
                f"{message} limit of {limited.spend_limit_micros}",
                resets_at=asked.account.resets_at(asked.now),
            )
    return None


def _credit(asked: Asked) -> APIError | None:
    account, cost = asked.account, asked.cost_micros
    if account.credit_micros is None or account.held_micros + cost <= account.credit_micros:
        return None
    left = max(0, account.credit_micros - account.held_micros)
    message = f"this request costs {cost} micro-units; {left} of credit are left: pay in more"
    return APIError(ErrorCode.INSUFFICIENT_CREDIT, message)


def _coverage(asked: Asked) -> APIError | None:
    """In which bucket an answer lies is known only once it is there: each query may open one."""
    account, queries = asked.account, asked.order.queries
    limit = account.coverage_limit
    if limit is None or queries <= (account.coverage_left or 0):
        return None
    may = f"this request asks {queries} queries, each of which may open a bucket of the embedding space"
    left = max(0, limit - account.buckets_covered)
    if queries <= left:
        message = f"{may}, and so may those in flight; ask again when they are answered"
        return APIError(ErrorCode.RATE_LIMITED, message, retry_after=1)
    advice = "ask fewer at once" if left else "ask the vendor for a higher limit"
    message = f"{may}; this account has {left} left of its coverage limit of {limit}: {advice}"
    return APIError(ErrorCode.COVERAGE_LIMIT_REACHED, message)


def _concurrency(asked: Asked) -> APIError | None:
    key = asked.key
    if asked.order.is_bulk or key.concurrency is None or key.requests_held < key.concurrency:
        return None
    message = f"this key may have {key.concurrency} requests in flight; ask again when one is answered"
    return APIError(ErrorCode.RATE_LIMITED, message, retry_after=1)


LIMITS: tuple[Limit, ...] = (_max_cost, _quota, _spend_limit, _credit, _coverage, _concurrency)

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


def tell_reached(
    session: Session,
    account: Account,
    before: Levels,
    percents: tuple[int, ...],
    now: int,
    of: Account | Project | ApiKey | None = None,
) -> None:
    """Write an event for each of these shares of a limit that is reached in this transaction.

    The limits are those of the account, or `of` a project or a key of it. The account is locked, so a share
    is reached in exactly one transaction. One that is left again, by a refund or a higher limit say, may be
    reached another time.
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
                events.emit(session, kind, account, _whose(of) | data, now, _project_of(of))


def _project_of(limited: Account | Project | ApiKey | None) -> str | None:
    if isinstance(limited, Project):
        return limited.id
    return limited.project_id if isinstance(limited, ApiKey) else NO_PROJECT


def _whose(limited: Account | Project | ApiKey | None) -> dict[str, str]:
    if isinstance(limited, Project):
        return {"project": limited.name}
    return {"key_id": limited.id} if isinstance(limited, ApiKey) else {}
