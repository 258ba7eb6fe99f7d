"""The currency: the one unit of all money in the books, whose millionths are counted."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from vendor_service.database.tables import BooksHead, LedgerEntry
from vendor_service.errors import OperatorError, UsageError

# The active codes of ISO 4217 that are money; tests and precious metals are none.
_CODES = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD "
    "CAD CDF CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP "
    "GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW "
    "KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN "
    "NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD "
    "SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD USN UYI UYU UYW "
    "UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG"
)
CODES = frozenset(_CODES.split())


def current(session: Session) -> str | None:
    """The code of the currency, or `None` where nobody has named it."""
    return session.scalar(select(BooksHead.currency))


def name(session: Session, code: str) -> str | None:
    """Set the currency; it stays the same once money has moved in it. What it was before.

    Raises:
        UsageError: there is no such currency.
        OperatorError: there are entries of a ledger in another one.
    """
    if code not in CODES:
        raise UsageError(f"{code!r} is no currency; write a code of ISO 4217, as EUR or USD")
    head = session.scalars(select(BooksHead).with_for_update()).one()
    before = head.currency
    if before not in (None, code) and session.scalar(select(LedgerEntry.seq).limit(1)) is not None:
        raise OperatorError(
            f"these books are in {before}, and what is in a ledger is never converted; "
            f"to sell in {code}, begin new books"
        )
    head.currency = code
    return before
