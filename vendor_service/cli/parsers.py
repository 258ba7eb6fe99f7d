"""How numbers and moments are read that are typed: as they stand, or not at all.

Typer alone takes 5.00 for 5, and digits for the seconds since 1970, which makes 1970 of 20261201. Amounts of
money are in `vendor_service.amounts`.
"""

import re
from datetime import datetime

from vendor_service.clock import from_datetime
from vendor_service.errors import UsageError

_WHOLE = re.compile(r"-?\d{1,100}", re.ASCII)


def whole_number(written: str | int) -> int:
    """A whole number, of digits alone; a default, which Typer passes through here too, stays as it is.

    Raises:
        UsageError: it is written in another way.
    """
    if not _WHOLE.fullmatch(str(written)):
        raise UsageError(f"{written!r} is not a whole number; write digits alone, as in 5000")
    return int(written)


def moment(written: str) -> int:
    """A day or a time as in ISO 8601, but not of digits alone, in microseconds; without a zone it is in UTC.

    Raises:
        UsageError: it is written in another way.
    """
    try:
        if not written.isdigit():
            return from_datetime(datetime.fromisoformat(written))
    except ValueError:
        pass
    raise UsageError(f"{written!r} is not a moment; write a day as in 2027-06-30, or 2027-06-30T12:00")
