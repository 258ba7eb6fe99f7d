"""Work that was done for a request and that nobody pays for."""

from dataclasses import dataclass

from shared.errors import ErrorCode
from vendor_service.errors import APIError

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


@dataclass
class Unpaid:
    """Queries of one request that were prepared: those that are not `paid` for, and not in the rate yet."""

    unpaid: int
    unrated: int

    def admitted(self, queries: int) -> None:
        """So many were admitted: they were counted against the rate with it."""
        self.unrated -= queries

    def answered(self, queries: int) -> None:
        """So many were answered, and are paid for."""
        self.unpaid -= queries

    def ended(self, error: APIError) -> None:
        """The request ended in an error."""
        if is_vendors_own(error):
            self.unpaid = self.unrated = 0
        elif error.code == ErrorCode.RATE_LIMITED:
            self.unrated = 0  # a caller whose requests overtake each other is to have the whole of its rate
