"""An allowance: how much may be prepared for an account that is then not paid for."""

import math

from shared.errors import ErrorCode
from vendor_service.clock import SECOND, Clock
from vendor_service.errors import APIError

UNPAID_PER_SECOND = 16
UNPAID_BURST = 1024
_TOKEN = SECOND  # one query, in millionths, as in `rate`
# So many accounts are remembered before those are forgotten that have all of it again.
_REMEMBERED = 10_000


def cost_of(seconds: float) -> int:
    """The price of a query in the allowance: one, or more where it took more than its processor time.

    A second of a processor takes what fills up in a second: an account may have one processor at most.
    """
    return max(1, math.ceil(UNPAID_PER_SECOND * seconds))


class _Buckets:
    """A bucket of queries for each account, which fills up again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[int, int]] = {}  # millionths of a query that are missing, and when

    def missing(self, account_id: str) -> int:
        """How many millionths of a query an account's bucket lacks."""
        now = self._clock()
        missing, since = self._buckets.get(account_id, (0, now))
        return max(0, missing - max(0, now - since) * UNPAID_PER_SECOND)

    def lacking(self, most: int) -> list[str]:
        """The accounts whose buckets lack more than `most`."""
        return [account_id for account_id in self._buckets if self.missing(account_id) > most]

    def take(self, account_id: str, queries: int) -> None:
        """Take queries; the debt is at most as large as the bucket."""
        missing = self.missing(account_id) + queries * _TOKEN
        self._buckets[account_id] = (min(missing, 2 * UNPAID_BURST * _TOKEN), self._clock())
        if len(self._buckets) > _REMEMBERED:
            self._buckets = {each: self._buckets[each] for each in self.lacking(0)}


class Allowance:
    """Two buckets of queries for each account: what was decoded, and then refused or waited for by nobody.

    They bound what an account without a rate limit can have done for nothing. Requests take of both, and are
    refused while the first is empty. Bulk jobs take of the second alone, and wait while half of that is gone:
    so no request is refused for what jobs took, and jobs get what requests leave of what fills up.
    Kept in memory, so each process has its own. Not thread-safe: it belongs to the event loop.
    """

    def __init__(self, clock: Clock) -> None:
        self._by_requests = _Buckets(clock)
        self._by_all = _Buckets(clock)

    def check(self, account_id: str) -> None:
        """Make sure that something is left for a request.

        Raises:
            APIError: `rate_limited`, with the seconds after which something is.
        """
        missing = self._by_requests.missing(account_id) - (UNPAID_BURST - 1) * _TOKEN
        if missing > 0:
            wait = -(-missing // (UNPAID_PER_SECOND * SECOND))
            message = f"too much was asked for this account that could not be answered; try again in {wait} s"
            raise APIError(ErrorCode.RATE_LIMITED, message, retry_after=wait)

    def half_gone(self) -> list[str]:
        """Accounts whose requests and jobs together took more than half: their jobs wait."""
        return self._by_all.lacking(UNPAID_BURST // 2 * _TOKEN)

    def take(self, account_id: str, queries: int) -> None:
        """Count queries of a request that were worked on and not paid."""
        self._by_requests.take(account_id, queries)
        self._by_all.take(account_id, queries)

    def take_for_job(self, account_id: str, queries: int) -> None:
        """Count queries of a bulk job that were worked on and not paid."""
        self._by_all.take(account_id, queries)
