"""Replays: a request that was paid for is answered again for free, for a limited time and number of times.

Each is counted when it is admitted, so that callers who hang up get no more; one that the vendor itself could
not answer is taken back.
"""

from dataclasses import dataclass

from shared.errors import ErrorCode
from shared.kinds import Counts, queries
from vendor_service.clock import SECOND
from vendor_service.database.working_set import HoldRow
from vendor_service.errors import APIError
from vendor_service.money.orders import Order


@dataclass(frozen=True)
class ReplayTerms:
    """How long after it was first admitted a request that was paid for is answered again, and how often."""

    window_seconds: int = 72 * 3600
    most: int = 32

    def check(self, hold: HoldRow, order: Order, now: int) -> bool:
        """Whether an order repeats what a hold, open or settled, was placed for, and is answered for free.

        It does not where the hold has expired and waits to be swept: the order may be a new one then.

        Raises:
            APIError: the first request is still being answered (`idempotency_in_flight`), was another one
                (`idempotency_key_reused`) or another model's (`fingerprint_mismatch`); or it was paid for
                and is answered no more (`charge_refunded`, `idempotency_key_expired`, `replays_exhausted`).
        """
        if hold.body_hash != order.body_hash:
            message = "this Idempotency-Key was used for another request; use a new key for a new request"
            raise APIError(ErrorCode.IDEMPOTENCY_KEY_REUSED, message)
        if hold.state == "open":
            if hold.expires_at <= now:
                return False
            message = "the first request with this Idempotency-Key is still being answered"
            raise APIError(ErrorCode.IDEMPOTENCY_IN_FLIGHT, message, retry_after=1)
        self._check_paid(hold, order, now)
        return True

    def _check_paid(self, hold: HoldRow, order: Order, now: int) -> None:
        anew = "nothing was charged now; to buy it anew, use a new key"
        if hold.refunded_at is not None:
            message = f"what this Idempotency-Key paid for was refunded; {anew}"
            raise APIError(ErrorCode.CHARGE_REFUNDED, message)
        if now >= hold.created_at + self.window_seconds * SECOND:
            hours = self.window_seconds // 3600
            message = f"this Idempotency-Key was paid for more than {hours} hours ago; {anew}"
            raise APIError(ErrorCode.IDEMPOTENCY_KEY_EXPIRED, message)
        if hold.model_fingerprint != order.model_fingerprint:
            message = "the model that this Idempotency-Key was paid for is no longer served; use a new key"
            raise APIError(ErrorCode.FINGERPRINT_MISMATCH, message)
        if hold.replays >= self.most:
            message = f"what this Idempotency-Key paid for was answered again {self.most} times; {anew}"
            raise APIError(ErrorCode.REPLAYS_EXHAUSTED, message)


STANDARD = ReplayTerms()


def check_counts(paid: Counts, now: Counts, *, may_shrink: bool = False) -> None:
    """Make sure that as much of a request is answered again as was paid for.

    An input that was passed over the first time may be within the limits by now, or the other way round.
    What `may_shrink` still may come to be as much.

    Raises:
        APIError: more is left of it now, which is answered no more (`idempotency_key_expired`); or less,
            which may pass (`conflict`).
    """
    told = (
        f"{queries(paid)} inputs were paid for with this Idempotency-Key, and "
        f"{queries(now)} would be answered now; nothing was charged now"
    )
    if any(now.get(kind, 0) < number for kind, number in paid.items()):
        raise APIError(ErrorCode.CONFLICT, f"{told}; ask again later")
    if not may_shrink and any(number > paid.get(kind, 0) for kind, number in now.items()):
        raise APIError(ErrorCode.IDEMPOTENCY_KEY_EXPIRED, f"{told}; to buy them anew, use a new key")


REPLAYS = ReplayTerms()
