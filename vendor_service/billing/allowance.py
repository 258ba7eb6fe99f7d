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
    """What a query takes of the allowance: one, or more where it took more processor time than one has.

    A second of a processor takes what fills up in a second: an account may have one processor at most.
    """
    return max(1, math.ceil(UNPAID_PER_SECOND * seconds))


class Allowance:
    """A bucket of queries for each account: what was decoded, and then refused or waited for by nobody.

    It bounds what an account without a rate limit can have done for nothing. Kept in memory, so each process
    has its own. Not thread-safe: it belongs to the event loop.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[int, int]] = {}  # millionths of a query that are missing, and when

    def check(self, account_id: str) -> None:
        """Make sure that something is left.

        Raises:
            APIError: `rate_limited`, with the seconds after which something is.
        """
        missing = self._missing(account_id, self._clock()) - (UNPAID_BURST - 1) * _TOKEN
        if missing > 0:
            wait = -(-missing // (UNPAID_PER_SECOND * SECOND))
            message = f"too much was asked for this account that could not be answered; try again in {wait} s"
            raise APIError(ErrorCode.RATE_LIMITED, message, retry_after=wait)

    def half_gone(self) -> list[str]:
        """The accounts that have less than half of it: what nobody waits for leaves the rest to requests."""
        now = self._clock()
        most = UNPAID_BURST // 2 * _TOKEN
        return [account_id for account_id in self._buckets if self._missing(account_id, now) > most]

    def take(self, account_id: str, queries: int) -> None:
        """Count queries that were worked on and not paid; the debt is at most as large as the bucket."""
        now = self._clock()
        missing = self._missing(account_id, now) + queries * _TOKEN
        self._buckets[account_id] = (min(missing, 2 * UNPAID_BURST * _TOKEN), now)
        if len(self._buckets) > _REMEMBERED:
            missed = {each: self._missing(each, now) for each in self._buckets}
            self._buckets = {each: (lacks, now) for each, lacks in missed.items() if lacks}

    def _missing(self, account_id: str, now: int) -> int:
        missing, since = self._buckets.get(account_id, (0, now))
        return max(0, missing - max(0, now - since) * UNPAID_PER_SECOND)
