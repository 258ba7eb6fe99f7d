"""Accounts: opening one, finding it again."""

import re
import secrets
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.billing import QuotaPeriod
from vendor_service.billing import ledger, periods
from vendor_service.clock import Clock
from vendor_service.database.tables import Account
from vendor_service.errors import OperatorError, UsageError

# Larger numbers than this cannot be told apart in JavaScript and other JSON readers.
_MAX_NUMBER = 2**53 - 1

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Terms:
    """What is agreed with a customer; `None` means no limit, and for `credit_micros` an invoiced account.

    `quota` is in queries a `quota_period`, `spend_limit_micros` in millionths of the currency unit a
    `quota_period`, `credit_micros` is what a prepaid account starts with.
    """

    quota: int | None = None
    quota_period: QuotaPeriod = "month"
    spend_limit_micros: int | None = None
    credit_micros: int | None = None
    queries_per_second: int | None = None


def open_account(session: Session, name: str, terms: Terms, clock: Clock) -> Account:
    """Open an account; a prepaid one gets its credit as the first entry of its ledger.

    Raises:
        UsageError: the name or a number cannot be.
        OperatorError: the name is taken.
    """
    _check(name, terms)
    if session.scalar(select(Account).where(Account.name == name)):
        raise OperatorError(f"there is an account {name!r} already; see it with: vendor accounts show {name}")
    now = clock()
    account = Account(
        id=f"acct_{secrets.token_hex(8)}",
        name=name,
        status="active",
        created_at=now,
        quota=terms.quota,
        quota_period=terms.quota_period,
        spend_limit_micros=terms.spend_limit_micros,
        credit_micros=None if terms.credit_micros is None else 0,
        queries_per_second=terms.queries_per_second,
        period_started_at=periods.start(terms.quota_period, now),
        rate_refilled_at=0,
        ledger_hash=ledger.GENESIS_HASH,
    )
    session.add(account)
    session.flush()
    if terms.credit_micros:
        ledger.top_up(session, account, terms.credit_micros, now)
    return account


def find_account(session: Session, name: str) -> Account:
    """The account of that name.

    Raises:
        OperatorError: there is none.
    """
    account = session.scalar(select(Account).where(Account.name == name))
    if account is None:
        raise OperatorError(f"there is no account {name!r}; list them with: vendor accounts list")
    return account


def list_accounts(session: Session) -> list[Account]:
    """All accounts, by name."""
    return list(session.scalars(select(Account).order_by(Account.name)))


def _check(name: str, terms: Terms) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be an account's name: "
            "use 1 to 63 lower-case letters, digits, dots, dashes and underscores, and begin with a letter"
        )
    for field in ("quota", "spend_limit_micros", "credit_micros"):
        number = getattr(terms, field)
        if number is not None and not 0 <= number <= _MAX_NUMBER:
            raise UsageError(f"{field} must be between 0 and {_MAX_NUMBER}, not {number}")
    if terms.queries_per_second is not None and not 1 <= terms.queries_per_second <= 10**6:
        raise UsageError(f"queries_per_second must be between 1 and 1000000, not {terms.queries_per_second}")
