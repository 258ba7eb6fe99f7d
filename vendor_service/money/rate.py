"""The rate limits: token buckets of an account, a project and a key, kept in millionths of a query."""

from shared.billing import RateLimit
from shared.errors import ErrorCode
from vendor_service.clock import MOST_SKEW, SECOND
from vendor_service.database.tables import Account, ApiKey, Project, Rated, limited_by
from vendor_service.errors import APIError
from vendor_service.money.limits import named
from vendor_service.money.orders import RateLimitStatus

_BURST_SECONDS = 10
_TOKEN = 1_000_000  # one query, in millionths: a rate a second is then as many tokens a microsecond


def limit_of(rated: Rated) -> RateLimit | None:
    """The rate limit of one of them, or `None` if it has none."""
    rate = rated.queries_per_second
    return None if rate is None else RateLimit(queries_per_second=rate, burst=rate * _BURST_SECONDS)


def tokens_left(rated: Rated, now: int) -> int:
    """The tokens in the bucket at `now`, in millionths of a query. A clock that steps back adds nothing.

    A bucket that a wrong clock filled far in the future goes on from now on.
    """
    limit = limit_of(rated)
    assert limit is not None
    gained = max(0, now - rated.rate_refilled_at) * limit.queries_per_second
    return min(limit.burst * _TOKEN, rated.rate_tokens + gained)


def status(account: Account, key: ApiKey, now: int) -> RateLimitStatus | None:
    """The state of the bucket that holds least; `None` where there is no limit."""
    found = [told for each in limited_by(account, key) if (told := _status(each, now)) is not None]
    return min(found, key=lambda told: told.remaining, default=None)


def _status(rated: Rated, now: int) -> RateLimitStatus | None:
    limit = limit_of(rated)
    if limit is None:
        return None
    left = tokens_left(rated, now)
    missing = limit.burst * _TOKEN - left
    reset = -(-missing // (limit.queries_per_second * SECOND))
    return RateLimitStatus(limit.burst, max(0, left // _TOKEN), reset)


def check(account: Account, key: ApiKey, queries: int, now: int) -> None:
    """Make sure that each bucket has tokens enough.

    A request larger than the burst is let through by a full bucket, which it leaves in debt: otherwise
    it could never be served.

    Raises:
        APIError: `rate_limited`, with the seconds after which it would not be, and where the bucket stands.
    """
    for rated in limited_by(account, key):
        _check(rated, queries, now)


def _check(rated: Account | Project | ApiKey, queries: int, now: int) -> None:
    limit = limit_of(rated)
    if limit is None:
        return
    tokens = tokens_left(rated, now)
    needed = min(queries, limit.burst) * _TOKEN
    if tokens < needed:
        told = _status(rated, now)
        wait = -(-(needed - tokens) // (limit.queries_per_second * SECOND))
        raise APIError(
            ErrorCode.RATE_LIMITED,
            f"{named(rated)} may ask {limit.queries_per_second} queries a second; try again in {wait} s",
            retry_after=wait,
            headers=told.headers if told else None,
        )


def take(account: Account, key: ApiKey, queries: int, now: int) -> None:
    """Take the queries' tokens from each bucket, which were checked before."""
    for rated in limited_by(account, key):
        if rated.queries_per_second is not None:
            rated.rate_tokens = tokens_left(rated, now) - queries * _TOKEN
            ahead = rated.rate_refilled_at > now + MOST_SKEW  # by a clock that was wrong
            rated.rate_refilled_at = now if ahead else max(now, rated.rate_refilled_at)
