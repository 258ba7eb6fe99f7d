"""An act: one transaction in which somebody changes the books, with its entry in the audit log."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from vendor_service.accounts.accounts import lock_account
from vendor_service.accounts.callers import view_by
from vendor_service.acts.verification import LedgerVerifier, Progress
from vendor_service.amounts import Amount
from vendor_service.audit import log
from vendor_service.audit.log import Facts
from vendor_service.clock import DAY, Clock, ClockWatch, system_clock
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, ApiKey, ConsoleSession, Limited, Project
from vendor_service.database.view import View
from vendor_service.errors import APIError, WrongClock
from vendor_service.money import currency, limits, standing
from vendor_service.money.clock_check import against_database
from vendor_service.money.prices import BATCH_PERCENT


class OperatorScope(StrEnum):
    """A permission of an operator's token. Every token may read; `ALL` includes the others, and tokens."""

    READ = "read"
    ACCOUNTS = "accounts"
    MONEY = "money"
    ALL = "all"


def check_scope(scopes: Collection[str], scope: OperatorScope) -> None:
    """Make sure that a token of these scopes may do what takes the scope; every token may read.

    Raises:
        APIError: `insufficient_scope`.
    """
    if scope is not OperatorScope.READ and not {scope, OperatorScope.ALL} & set(scopes):
        message = f"this token may not do this; it takes one with the scope {scope}"
        raise APIError(ErrorCode.INSUFFICIENT_SCOPE, message)


@dataclass(frozen=True)
class Customer:
    """Somebody who acts on their own account: by a key of it, or with `None` as somebody who was invited.

    They showed the secret of that hash, or are signed in to the console by that session.
    """

    account: Account
    key: ApiKey | None
    secret_hash: str | None = None
    session_id: str | None = None

    @property
    def account_id(self) -> str:
        """The account's id."""
        return self.account.id

    @property
    def name(self) -> str:
        """The account's name."""
        return self.account.name

    @property
    def view(self) -> View:
        """The part of the account that they see, and act on."""
        return view_by(self.account, self.key)

    def still(self, session: Session, now: int) -> Self:
        """The same, as the books have them under the lock of the account, if they may still act.

        They waited since it was found who they are: meanwhile their key may have been contained, say.

        Raises:
            APIError: what `standing.check` raises; or `invalid_api_key`, they were signed out.
        """
        account = lock_account(session, self.account_id)
        key = None if self.key is None else session.get_one(ApiKey, self.key.id, populate_existing=True)
        standing.check(account, key, self.secret_hash, now)
        if self.session_id is not None and session.get(ConsoleSession, self.session_id) is None:
            raise APIError(ErrorCode.INVALID_API_KEY, "you were signed out meanwhile; sign in again")
        return replace(self, account=account, key=key)

    def require_whole(self, what: str) -> None:
        """Make sure that they see the whole account, which `what` is of.

        Raises:
            APIError: `insufficient_scope`.
        """
        if not self.view.is_whole:
            message = f"{what} of the whole account, and this key sees one project of it"
            raise APIError(ErrorCode.INSUFFICIENT_SCOPE, message)


@dataclass(frozen=True)
class Act:
    """The transaction, who acts (see `audit.actors`), and the clock. A query has one that only reads.

    `percents` are the thresholds that receivers hear of. A `customer` may act on their own account alone.
    `scopes` are those of an operator's token; whoever may open the database has no need of any. Files of a
    bulk job that is ended are kept for `keep_micros`. `action` is the act's name in the audit log.
    """

    session: Session
    actor: str
    clock: Clock
    trust_clock: bool = False
    percents: tuple[int, ...] = limits.STANDARD_PERCENTS
    watch: ClockWatch | None = None
    customer: Customer | None = None
    scopes: frozenset[str] | None = None
    keep_micros: int = 30 * DAY
    action: str = ""

    @property
    def now(self) -> int:
        """The time, in microseconds since the epoch."""
        return self.clock()

    def view(self, account: Account) -> View:
        """The part of an account that is seen, and acted on: all of it, but for a customer's own view."""
        return View.whole(account.id) if self.customer is None else self.customer.view

    def require(self, scope: OperatorScope) -> None:
        """Make sure that an operator's token has the scope; raises what `check_scope` does."""
        if self.scopes is not None:
            check_scope(self.scopes, scope)

    def record(self, subject: str, before: Facts | None, after: Facts | None, *, action: str = "") -> None:
        """Write the act, or another `action`, into the audit log; the last thing that an act does."""
        log.append(self.session, self.actor, action or self.action, subject[:255], before, after, self.now)

    def believe_clock(self) -> None:
        """Make sure that this machine's clock may be right; raises what `believe_clock` does."""
        believe_clock(self.session, self.clock, trust_clock=self.trust_clock, watch=self.watch)

    @contextmanager
    def changing(
        self,
        owner: Account,
        row: Account | Project | ApiKey,
        fields: Collection[str],
        named: Facts | None = None,
    ) -> Iterator[None]:
        """Change an account, or a project or key of it, and record which of these fields differ, if any.

        `named` says in the record which project or key it is. Receivers hear of thresholds that are reached
        by it. The transaction has locked what is changed.
        """
        before, stood = _values(row, fields), limits.levels(row)
        yield
        after = _values(row, fields)
        if not row.is_period_over(owner, self.now):  # what was used of a former period is no news
            of = None if row is owner else row
            limits.tell_reached(self.session, owner, stood, self.percents, self.now, of=of)
        changed = [field for field in fields if before[field] != after[field]]
        if changed:
            sides = [
                dict(named or {}) | {field: side[field] for field in changed} for side in (before, after)
            ]
            self.record(owner.name, *sides)


@dataclass(frozen=True)
class ActContext:
    """The context of acts: the books, the clock, the vendor's files, and on whose behalf; see `Act`.

    `keys_in` is the folder of the key that signs receipts, `None` for the usual place. `reload_models`
    has the vendor read its file of models again; it is `None` where there is none. Those who share a
    `verifier` verify the ledger one at a time; `progress` hears how far that is. `examine` makes the
    doctor's findings of this machine.
    """

    database: Database
    clock: Clock = system_clock
    trust_clock: bool = False
    percents: tuple[int, ...] = limits.STANDARD_PERCENTS
    watch: ClockWatch | None = None
    keys_in: Path | None = None
    keep_micros: int = 30 * DAY
    reload_models: Callable[[], None] | None = None
    verifier: LedgerVerifier | None = None
    progress: Progress | None = None
    examine: Callable[[], Iterable[Any]] | None = None
    actor: str = ""
    customer: Customer | None = None
    scopes: frozenset[str] | None = None
    action: str = ""

    def by(
        self, actor: str, *, customer: Customer | None = None, scopes: frozenset[str] | None = None
    ) -> Self:
        """The same on behalf of somebody."""
        return replace(self, actor=actor, customer=customer, scopes=scopes)

    def in_currency(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What was given, with amounts as micro-units of the books; a share of prices is a percentage.

        Raises:
            OperatorError: an amount is in another currency.
        """
        if not any(isinstance(value, Amount) for value in given.values()):
            return dict(given)
        with self.read() as act:
            unit = currency.current(act.session)
        is_percent = given.get("kind") == BATCH_PERCENT

        def settled(amount: Amount) -> int:
            return amount.as_percent() if is_percent else amount.of_books_in(unit)

        return {name: settled(value) if isinstance(value, Amount) else value for name, value in given.items()}

    @contextmanager
    def write(self) -> Iterator[Act]:
        """One transaction that may change the books; raises what `Database.write` and `Customer.still` do."""
        with self.database.write() as session:
            customer = None if self.customer is None else self.customer.still(session, self.clock())
            yield replace(self, customer=customer).act_in(session)

    @contextmanager
    def read(self) -> Iterator[Act]:
        """One transaction that only reads; raises what `Database.read` does."""
        with self.database.read() as session:
            yield self.act_in(session)

    def act_in(self, session: Session) -> Act:
        """An act, or a query, in a transaction that is open already."""
        return Act(
            session,
            self.actor,
            self.clock,
            self.trust_clock,
            self.percents,
            self.watch,
            self.customer,
            self.scopes,
            self.keep_micros,
            self.action,
        )


def believe_clock(
    session: Session, clock: Clock, *, trust_clock: bool, watch: ClockWatch | None = None
) -> None:
    """Make sure that the clock may be right, by its `watch` and by what the database knows.

    Raises:
        WrongClock: it cannot be.
    """
    fault = None if watch is None else watch.fault
    # Another account that goes on ahead of it proves nothing; `ledger` looks at the one that is meant.
    fault = fault or against_database(session, clock(), trust_clock=trust_clock, may_be_behind=False)
    if fault is not None:
        raise WrongClock(fault)


def _values(row: Limited, fields: Collection[str]) -> dict[str, str | int | None]:
    return {field: getattr(row, field) for field in fields}
