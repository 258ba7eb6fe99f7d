"""Work that was done for a request and that nobody pays for."""

from collections.abc import Collection

from shared.errors import ErrorCode
from vendor_service.errors import APIError
from vendor_service.money.allowance import cost_of

# Where the vendor itself cannot, the customer is not held to it.
_VENDORS_OWN = {
    ErrorCode.INTERNAL_ERROR,
    ErrorCode.OVERLOADED,
    ErrorCode.NOT_READY,
    ErrorCode.SHUTTING_DOWN,
}


def is_vendors_own(error: BaseException) -> bool:
    """Whether a request that ended so failed by the vendor itself, and not by its caller or its deadline."""
    return error.code in _VENDORS_OWN if isinstance(error, APIError) else isinstance(error, Exception)


class Unpaid:
    """Queries of one request that were prepared: those that are not paid for, and not in the rate yet."""

    def __init__(self, queries: int) -> None:
        self.unrated = queries
        self._seconds = dict.fromkeys(range(queries), 0.0)  # of those that are not paid for

    @property
    def unpaid(self) -> int:
        """What those that are not paid for take of the allowance."""
        return sum(map(cost_of, self._seconds.values()))

    def took(self, index: int, seconds: float) -> None:
        """One of them took so much processor time to prepare."""
        self._seconds[index] = seconds

    def admitted(self, queries: int) -> None:
        """So many were admitted: they were counted against the rate with it."""
        self.unrated -= queries

    def answered(self, refused: Collection[int]) -> None:
        """All were answered and are paid for, but those that were refused."""
        self._seconds = {index: self._seconds[index] for index in refused}

    def ended(self, error: APIError) -> None:
        """The request ended in an error."""
        if is_vendors_own(error):
            self.unrated = 0
            self._seconds = {}
        elif error.code == ErrorCode.RATE_LIMITED:
            self.unrated = 0  # a caller whose requests overtake each other is to have the whole of its rate
