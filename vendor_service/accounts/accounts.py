"""Accounts: opening one, finding it again, changing what was agreed."""

import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.billing import QuotaPeriod
from vendor_service.accounts.checks import check_name, check_numbers, check_rate
from vendor_service.clock import Clock
from vendor_service.database.session import take_turns
from vendor_service.database.tables import GENESIS_HASH, STANDARD_PLAN, Account, period_start
from vendor_service.errors import OperatorError, UnknownName
from vendor_service.money import payments, prices
from vendor_service.money.repair import count_period
from vendor_service.terms import Quota, Rate, SpendLimit, Term, Unit

# What may be agreed otherwise later.
CHANGEABLE = ("quota", "quota_period", "spend_limit_micros", "queries_per_second", "coverage_limit", "plan")


Plan = Annotated[
    str,
    Term(
        "The plan whose prices hold: see `vendor prices list`.", label="Plan", typed="--plan", choices="plans"
    ),
]
CoverageLimit = Annotated[
    int | None,
    Term(
        "Buckets of the embedding space, over all time.",
        label="Coverage, in buckets",
        typed="--coverage-limit",
        form="coverage",
    ),
]


@dataclass(frozen=True)
class Terms:
    """What is agreed with a customer; `None` means no limit, and for `credit_micros` an invoiced account.

    `quota` is in queries a `quota_period`, `spend_limit_micros` in millionths of the currency unit a
    `quota_period`, `credit_micros` is what a prepaid account starts with, `coverage_limit` is in buckets of
    the embedding space, over all time.
    """

    quota: Quota = None
    quota_period: Annotated[
        QuotaPeriod,
        Term(
            "A calendar month in UTC, or all time.",
            label="Period",
            typed="--period",
            form="quota_period",
            choices={"month": "a month", "total": "all time"},
        ),
    ] = "month"
    spend_limit_micros: SpendLimit = None
    credit_micros: Annotated[
        int | None,
        Term(
            "Prepaid money, as in 50EUR.",
            label="Prepaid credit",
            typed="--credit",
            unit=Unit.MONEY,
            none="invoiced",
        ),
    ] = None
    queries_per_second: Rate = None
    coverage_limit: CoverageLimit = None
    plan: Plan = STANDARD_PLAN


def open_account(session: Session, name: str, terms: Terms, clock: Clock) -> Account:
    """Open an account; a prepaid one gets its credit as the first entry of its ledger.

    Raises:
        UsageError: the name or a number cannot be.
        OperatorError: the name is taken.
    """
    check_name(name)
    check_numbers(
        quota=terms.quota,
        spend_limit_micros=terms.spend_limit_micros,
        credit_micros=terms.credit_micros,
        coverage_limit=terms.coverage_limit,
    )
    check_rate(terms.queries_per_second)
    now = clock()
    _check_plan(session, terms.plan, now)
    _take_name(session, name)
    account = Account(
        id=f"acct_{secrets.token_hex(8)}",
        name=name,
        status="active",
        created_at=now,
        plan=terms.plan,
        quota=terms.quota,
        quota_period=terms.quota_period,
        spend_limit_micros=terms.spend_limit_micros,
        credit_micros=None if terms.credit_micros is None else 0,
        queries_per_second=terms.queries_per_second,
        coverage_limit=terms.coverage_limit,
        period_started_at=period_start(terms.quota_period, now),
        rate_refilled_at=0,
        ledger_at=now,  # nothing is dated before the account was opened
        ledger_hash=GENESIS_HASH,
    )
    session.add(account)
    session.flush()
    if terms.credit_micros:
        payments.top_up(session, account, terms.credit_micros, now)
    return account


def find_account(session: Session, name: str, *, lock: bool = False) -> Account:
    """The account of that name; `lock` it to change anything that admission changes or checks.

    Raises:
        UnknownName: there is none.
    """
    named = select(Account).where(Account.name == name)
    account = session.scalar(named.with_for_update() if lock else named)
    if account is None:
        raise UnknownName(f"there is no account {name!r}; list them with: `vendor accounts list`")
    return account


def lock_account(session: Session, account_id: str) -> Account:
    """An account as it is once this transaction has locked it, for what changes anything of it."""
    return session.get_one(Account, account_id, with_for_update=True, populate_existing=True)


def list_accounts(session: Session, after: str = "", limit: int | None = None) -> list[Account]:
    """All accounts, or up to `limit` of those behind a name, by name."""
    found = select(Account).where(Account.name > after).order_by(Account.name).limit(limit)
    return list(session.scalars(found))


def change_terms(
    session: Session, account: Account, changes: Mapping[str, int | str | None], now: int
) -> None:
    """Agree on something else, from now on; what was used counts, in another period as well.

    This transaction must have locked the account. `changes` names some fields of `Terms`, all but
    `credit_micros`.

    Raises:
        UsageError: a number cannot be.
        UnknownName: there is no such plan.
    """
    terms: dict[str, Any] = {name: getattr(account, name) for name in CHANGEABLE} | dict(changes)
    check_numbers(**{name: terms[name] for name in ("quota", "spend_limit_micros", "coverage_limit")})
    check_rate(terms["queries_per_second"])
    if terms["plan"] != account.plan:
        _check_plan(session, terms["plan"], now)
    other_period = terms["quota_period"] != account.quota_period
    for name in CHANGEABLE:
        setattr(account, name, terms[name])
    if other_period:
        count_period(session, account, now)


def rename(session: Session, account: Account, name: str) -> None:
    """Give an account another name, in a transaction that has locked it.

    Raises:
        UsageError: the name cannot be.
        OperatorError: it is taken.
    """
    check_name(name)
    _take_name(session, name)
    account.name = name


def _take_name(session: Session, name: str) -> None:
    take_turns(session.connection(), f"open account {name}")
    if session.scalar(select(Account).where(Account.name == name)):
        raise OperatorError(
            f"there is an account {name!r} already; see it with: `vendor accounts show {name}`"
        )


def _check_plan(session: Session, plan: str, now: int) -> None:
    known = prices.plans(session, now)
    if plan not in known:
        raise UnknownName(
            f"there is no plan {plan!r}, only {', '.join(sorted(known))}; "
            f"make one with: `vendor prices set MODEL KIND PRICE --plan {shlex.quote(plan)} --new`"
        )
