"""Seller and buyer, as invoices name them: where the books have them, and what they may be."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.billing import Buyer, Seller
from vendor_service.database.tables import Account, BooksHead
from vendor_service.errors import UsageError
from vendor_service.terms import Term

_LONGEST = 200
_COUNTRY = re.compile(r"[A-Z]{2}")
_EMPTY = "none"

Taxed = Literal["standard", "reverse-charge", "exempt"]


def _line(text: str, label: str, option: str) -> Term:
    return Term(text, label=label, typed=option, longest=_LONGEST)


@dataclass(frozen=True)
class PartyTerms:
    """A party to an invoice; `none` empties a field."""

    legal_name: Annotated[str, _line("Legal name.", "Legal name", "--legal-name")] = ""
    street: Annotated[str, _line("Street and number.", "Street and number", "--street")] = ""
    postcode: Annotated[str, _line("Postcode.", "Postcode", "--postcode")] = ""
    city: Annotated[str, _line("City.", "City", "--city")] = ""
    country: Annotated[
        str, Term("Country, as DE (ISO 3166).", label="Country, as DE", typed="--country", longest=4)
    ] = ""
    tax_id: Annotated[str, _line("VAT identifier, as DE123456789.", "VAT identifier", "--tax-id")] = ""
    email: Annotated[str, _line("Address for invoices.", "E-mail", "--email")] = ""


@dataclass(frozen=True)
class SellerTerms(PartyTerms):
    """The seller of all invoices."""

    iban: Annotated[str, _line("Account to pay to.", "IBAN", "--iban")] = ""
    bic: Annotated[str, _line("Bank of that account.", "BIC", "--bic")] = ""
    tax_basis_points: Annotated[
        int,
        Term(
            "Tax that prices include, in hundredths of a percent: 1900 is 19%.",
            label="Tax that prices include, in hundredths of a percent",
            typed="--tax-basis-points",
            least=0,
            most=9999,
        ),
    ] = 0
    due_days: Annotated[
        int,
        Term("Days in which to pay.", label="Days in which to pay", typed="--due-days", least=0, most=365),
    ] = 14


@dataclass(frozen=True)
class BuyerTerms(PartyTerms):
    """The buyer of an account's invoices."""

    reference: Annotated[str, _line("Their order, or cost centre.", "Their reference", "--reference")] = ""
    taxed: Annotated[
        Taxed,
        Term(
            "How they are taxed: standard, reverse-charge or exempt.",
            label="Taxed",
            typed="--taxed",
            choices={
                "standard": "as the seller says",
                "reverse-charge": "reverse charge",
                "exempt": "exempt",
            },
        ),
    ] = "standard"


def seller(session: Session) -> Seller:
    """The seller; nameless where nobody has named it."""
    content = session.scalar(select(BooksHead.seller))
    return Seller() if content is None else Seller.model_validate_json(content)


def buyer(account: Account) -> Buyer:
    """The buyer of an account's invoices; nameless where nobody has named it."""
    return Buyer() if account.buyer is None else Buyer.model_validate_json(account.buyer)


def set_seller(session: Session, changes: Mapping[str, int | str]) -> tuple[Seller, Seller]:
    """Change the seller of invoices that are issued from now on; what it was, and what it is.

    Raises:
        UsageError: a field cannot be.
    """
    head = session.scalars(select(BooksHead).with_for_update()).one()
    before = seller(session)
    after = before.model_copy(update=_checked(changes))
    head.seller = after.model_dump_json()
    return before, after


def set_buyer(account: Account, changes: Mapping[str, int | str]) -> tuple[Buyer, Buyer]:
    """Change the buyer of an account that is locked, as `set_seller` does."""
    before = buyer(account)
    after = before.model_copy(update=_checked(changes))
    account.buyer = after.model_dump_json()
    return before, after


def _checked(changes: Mapping[str, int | str]) -> dict[str, int | str]:
    found: dict[str, int | str] = {}
    for name, value in changes.items():
        if isinstance(value, str):
            value = " ".join(value.split())
            value = "" if value == _EMPTY else value
            if len(value) > _LONGEST or not value.isprintable():
                raise UsageError(f"{name.replace('_', ' ')}: write up to {_LONGEST} printable characters")
        found[name] = value
    country = found.get("country")
    if country and not _COUNTRY.fullmatch(str(country)):
        raise UsageError(f"{country!r} is no country; write its two letters, as DE (ISO 3166)")
    return found
