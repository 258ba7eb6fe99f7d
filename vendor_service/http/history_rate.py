"""The rate of questions about the past: a bucket a key, in the memory of this process."""

import math
import threading
import time
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends

from shared.errors import ErrorCode
from vendor_service.accounts.callers import Caller
from vendor_service.errors import APIError
from vendor_service.http.authentication import Dependency

QUESTIONS_A_SECOND = 5.0
BURST = 40.0
# Buckets that are full again are forgotten when there are more than so many.
_MOST_BUCKETS = 10_000


class HistoryRate:
    """Lets each key ask `BURST` questions at once, and `QUESTIONS_A_SECOND` from then on. Thread-safe.

    So no key uses up what another one of its account may ask. Several processes have a bucket each. `steady`
    tells seconds that never step.
    """

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._lock = threading.Lock()
        self._full_at: dict[str, float] = {}  # when a bucket is full again

    def limiting(self, authenticate: Dependency) -> Dependency:
        """Make the dependency that admits whom `authenticate` does, at this rate."""

        async def admit(caller: Annotated[Caller, Depends(authenticate)]) -> Caller:
            self.take(caller.key_id)
            return caller

        return admit

    def take(self, who: str, cost: int = 1) -> None:
        """Count a question as so many. One that is refused does not count.

        Raises:
            APIError: `rate_limited`, with the seconds after which it would not be.
        """
        with self._lock:
            now = self._steady()
            full_at = max(now, self._full_at.get(who, now)) + cost / QUESTIONS_A_SECOND
            late = full_at - now - BURST / QUESTIONS_A_SECOND - 1e-9  # less what rounding may add
            if late > 0:
                raise APIError(
                    ErrorCode.RATE_LIMITED,
                    "usage, ledger, invoices and receipts of bulk jobs may be asked for "
                    f"{QUESTIONS_A_SECOND:g} times a second",
                    retry_after=math.ceil(late),
                )
            self._full_at[who] = full_at
            if len(self._full_at) > _MOST_BUCKETS:
                self._full_at = {each: full for each, full in self._full_at.items() if full > now}
