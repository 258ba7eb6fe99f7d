"""The rate limit: a token bucket on the account's row, kept in millionths of a query."""

from shared.billing import RateLimit
from shared.errors import ErrorCode
from vendor_service.billing.clock_watch import MOST_SKEW
from vendor_service.billing.orders import RateLimitStatus
from vendor_service.clock import SECOND
from vendor_service.database.tables import Account
from vendor_service.errors import APIError

_BURST_SECONDS = 10
_TOKEN = 1_000_000  # one query, in millionths: a rate a second is then as many tokens a microsecond


def limit_of(account: Account) -> RateLimit | None:
    """The account's rate limit, or `None` if it has none."""
    rate = account.queries_per_second
    return None if rate is None else RateLimit(queries_per_second=rate, burst=rate * _BURST_SECONDS)


def tokens_left(account: Account, now: int) -> int:
    """What the bucket holds at `now`, in millionths of a query. A clock that steps back adds nothing.

    A bucket that a wrong clock filled far in the future goes on from now on.
    """
    limit = limit_of(account)
    assert limit is not None
    gained = max(0, now - account.rate_refilled_at) * limit.queries_per_second
    return min(limit.burst * _TOKEN, account.rate_tokens + gained)


def status(account: Account, now: int) -> RateLimitStatus | None:
    """What the account is told of its bucket, or `None` if it has no limit."""
    limit = limit_of(account)
    if limit is None:
        return None
    left = tokens_left(account, now)
    missing = limit.burst * _TOKEN - left
    reset = -(-missing // (limit.queries_per_second * SECOND))
    return RateLimitStatus(limit.burst, max(0, left // _TOKEN), reset)


def check(account: Account, queries: int, now: int) -> None:
    """Make sure that the bucket has tokens enough.

    A request larger than the burst is let through by a full bucket, which it leaves in debt: otherwise
    it could never be served.

    Raises:
        APIError: `rate_limited`, with the seconds after which it would not be, and where the bucket stands.
    """
    limit = limit_of(account)
    if limit is None:
        return
    tokens = tokens_left(account, now)
    needed = min(queries, limit.burst) * _TOKEN
    if tokens < needed:
        told = status(account, now)
        wait = -(-(needed - tokens) // (limit.queries_per_second * SECOND))
        raise APIError(
            ErrorCode.RATE_LIMITED,
            f"this account may ask {limit.queries_per_second} queries a second; try again in {wait} s",
            retry_after=wait,
            headers=told.headers if told else None,
        )


def take(account: Account, queries: int, now: int) -> None:
    """Take the queries' tokens from the bucket, which was checked before."""
    if limit_of(account) is not None:
        account.rate_tokens = tokens_left(account, now) - queries * _TOKEN
        ahead = account.rate_refilled_at > now + MOST_SKEW  # by a clock that was wrong
        account.rate_refilled_at = now if ahead else max(now, account.rate_refilled_at)
