"""Which names, limits and rates there may be."""

import re

from vendor_service.errors import UsageError
from vendor_service.terms import MAX_NUMBER

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,62}")


def check_numbers(**numbers: int | None) -> None:
    """Make sure that limits can be.

    Raises:
        UsageError: one is negative or too large; the message names it.
    """
    for name, number in numbers.items():
        if number is not None and not 0 <= number <= MAX_NUMBER:
            raise UsageError(f"{name} must be between 0 and {MAX_NUMBER}, not {number}")


def check_name(name: str, whose: str = "an account") -> None:
    """Make sure that a name can be.

    Raises:
        UsageError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be {whose}'s name: "
            "use 1 to 63 lower-case letters, digits, dots, dashes and underscores, and begin with a letter"
        )


def check_rate(queries_per_second: int | None) -> None:
    """Make sure that a rate can be.

    Raises:
        UsageError: it cannot.
    """
    if queries_per_second is not None and not 1 <= queries_per_second <= 10**6:
        raise UsageError(f"queries_per_second must be between 1 and 1000000, not {queries_per_second}")
