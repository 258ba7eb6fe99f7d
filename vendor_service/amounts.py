"""Amounts of money as people write them: in the currency and exact, or in whole micro-units by suffix."""

import re
from dataclasses import dataclass
from decimal import Decimal

from vendor_service.errors import OperatorError, UsageError
from vendor_service.terms import MAX_NUMBER

_MICROS = "micros"
_UNIT = 1_000_000
_LONGEST = 40
_WRITTEN = re.compile(r"([-+]?)([0-9][0-9,]*)?(?:\.([0-9]*))?\s*([A-Za-z]*)", re.ASCII)
# Commas between thousands, as in 1,234.5. A 0 before the first comma, as in 0,500, is of a decimal comma.
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(,[0-9]{3})+", re.ASCII)


@dataclass(frozen=True)
class Amount:
    """An amount as it was `written`: in micro-units, with the currency if that was named."""

    micros: int
    currency: str | None
    written: str

    def of_books_in(self, currency: str | None) -> int:
        """The micro-units, in books in this currency.

        Raises:
            UsageError: it is written in another one.
            OperatorError: nobody has named the currency of the books.
        """
        if self.currency is not None and currency is None:
            raise OperatorError(
                "nobody has named the currency of these books; leave it out, or name it with: "
                "`vendor currency EUR`"
            )
        if self.currency not in (None, currency):
            raise UsageError(f"{self.written!r} is in {self.currency}, and these books are in {currency}")
        return self.micros

    def as_percent(self) -> int:
        """The whole percentage that was written where a price of bulk jobs is meant.

        Raises:
            UsageError: it is none.
        """
        percent, rest = divmod(self.micros, _UNIT)
        if rest or self.currency is not None or _MICROS in self.written.lower():
            raise UsageError(
                f"{self.written!r} is not a whole percentage, which is what bulk jobs pay, as in 50"
            )
        return percent


def read_amount(written: str) -> Amount:
    """Read an amount: `50`, `0.0001`, `5 EUR`, `5EUR`, `1,234.50`, or `100micros`.

    Raises:
        UsageError: it is something else, or finer than a micro-unit.
    """
    plain = written.strip().replace("\u2212", "-")
    match = _WRITTEN.fullmatch(plain) if len(plain) <= _LONGEST else None
    if match is None:
        raise _none(written)
    sign, whole, part, unit = match[1], match[2] or "", match[3], match[4]
    if not whole + (part or "") or ("," in whole and not _THOUSANDS.fullmatch(whole)):
        raise _none(written)
    number = Decimal(f"{sign}{whole.replace(',', '') or '0'}.{part or '0'}")
    in_micros = unit.lower() == _MICROS
    micros = number if in_micros else number * _UNIT
    if (unit and not in_micros and len(unit) != 3) or micros != micros.to_integral_value():
        raise _none(written)
    if abs(micros) > MAX_NUMBER:
        raise UsageError(f"{written!r} is too large; an amount has fewer than 16 digits in micro-units")
    return Amount(int(micros), unit.upper() if unit and not in_micros else None, written)


def _none(written: str) -> UsageError:
    return UsageError(
        f"{written!r} is not an amount; write it in the currency, to the millionth at most, as in 12.50, "
        "0.0001 or 5EUR, or in whole micro-units, as in 100micros"
    )
