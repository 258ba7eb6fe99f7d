"""The act of naming the currency of the books."""

from pydantic import BaseModel

from vendor_service.acts.act import Act
from vendor_service.money import currency


class CurrencyName(BaseModel):
    """The currency of all money in the books, by its code in ISO 4217; `None`: nobody has named it."""

    currency: str | None


def name_currency(act: Act, code: str) -> CurrencyName:
    """Name the currency; raises what `currency.name` does. Naming it again changes nothing."""
    before = currency.name(act.session, code)
    if before != code:
        act.record("currency.set", code, {"currency": before}, {"currency": code})
    return CurrencyName(currency=code)
