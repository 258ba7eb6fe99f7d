"""Rates: token buckets of queries, kept in millionths of one.

An account, a project and a key may have a rate limit, whose bucket is in the books. Every project has an
allowance as well, in memory: how much may be prepared for it that is then not paid for. It is a `View` here.
"""

import math

from shared.billing import RateLimit
from shared.errors import ErrorCode
from vendor_service.clock import MOST_SKEW, SECOND, Clock
from vendor_service.database.tables import Account, ApiKey, Project, Rated, limited_by
from vendor_service.database.view import View
from vendor_service.errors import APIError
from vendor_service.money.limits import named
from vendor_service.money.orders import RateLimitStatus

_BURST_SECONDS = 10
_TOKEN = 1_000_000  # one query, in millionths: a rate a second is then as many tokens a microsecond
UNPAID_PER_SECOND = 16
UNPAID_BURST = 1024
# So many projects are remembered before those are forgotten that have all of their allowance again.
_REMEMBERED = 10_000


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


def cost_of(seconds: float) -> int:
    """The price of a query in the allowance: one, or more where it took more than its processor time.

    A second of a processor takes what fills up in a second: a project may have one processor at most.
    """
    return max(1, math.ceil(UNPAID_PER_SECOND * seconds))


class _Buckets:
    """A bucket of queries for each project, which fills up again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[View, tuple[int, int]] = {}  # millionths of a query that are missing, and when

    def missing(self, project: View) -> int:
        """How many millionths of a query a project's bucket lacks."""
        now = self._clock()
        missing, since = self._buckets.get(project, (0, now))
        return max(0, missing - max(0, now - since) * UNPAID_PER_SECOND)

    def lacking(self, most: int) -> list[View]:
        """The projects whose buckets lack more than `most`."""
        return [project for project in self._buckets if self.missing(project) > most]

    def take(self, project: View, queries: int) -> None:
        """Take queries; the debt is at most as large as the bucket."""
        missing = self.missing(project) + queries * _TOKEN
        self._buckets[project] = (min(missing, 2 * UNPAID_BURST * _TOKEN), self._clock())
        if len(self._buckets) > _REMEMBERED:
            self._buckets = {each: self._buckets[each] for each in self.lacking(0)}


class Allowance:
    """Two buckets of queries for each project: what was decoded, and then refused or waited for by nobody.

    They bound what a project without a rate limit can have done for nothing. Requests take of both, and are
    refused while the first is empty. Bulk jobs take of the second alone, and wait while half of that is gone:
    so no request is refused for what jobs took, and jobs get what requests leave of what fills up.
    Kept in memory, so each process has its own. Not thread-safe: it belongs to the event loop.
    """

    def __init__(self, clock: Clock) -> None:
        self._by_requests = _Buckets(clock)
        self._by_all = _Buckets(clock)

    def check(self, project: View) -> None:
        """Make sure that something is left for a request.

        Raises:
            APIError: `rate_limited`, with the seconds after which something is.
        """
        missing = self._by_requests.missing(project) - (UNPAID_BURST - 1) * _TOKEN
        if missing > 0:
            wait = -(-missing // (UNPAID_PER_SECOND * SECOND))
            message = f"too much was asked for this project that could not be answered; try again in {wait} s"
            raise APIError(ErrorCode.RATE_LIMITED, message, retry_after=wait)

    def half_gone(self) -> list[View]:
        """Projects whose requests and jobs together took more than half: their jobs wait."""
        return self._by_all.lacking(UNPAID_BURST // 2 * _TOKEN)

    def take(self, project: View, queries: int) -> None:
        """Count queries of a request that were worked on and not paid."""
        self._by_requests.take(project, queries)
        self._by_all.take(project, queries)

    def take_for_job(self, project: View, queries: int) -> None:
        """Count queries of a bulk job that were worked on and not paid."""
        self._by_all.take(project, queries)
