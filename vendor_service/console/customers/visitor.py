"""Customers who are signed in: by a key that may read usage, or by an invitation."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from sqlalchemy import case, or_, select
from sqlalchemy.orm import Session

from shared.errors import APIError, ErrorCode
from vendor_service.accounts.accounts import lock_account
from vendor_service.accounts.callers import Caller
from vendor_service.accounts.keys import Scope, id_of
from vendor_service.acts import invitations, keys
from vendor_service.acts.act import Act, Customer
from vendor_service.acts.authentication import WrongTries
from vendor_service.acts.sessions import holds
from vendor_service.audit import actors
from vendor_service.clock import Clock
from vendor_service.console import sessions
from vendor_service.console.forms import Fields
from vendor_service.console.seal import Seal
from vendor_service.console.sessions import CUSTOMERS
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, ApiKey, ConsoleSession, Invitation
from vendor_service.database.view import View
from vendor_service.http.account_threads import AccountThreads
from vendor_service.http.authentication import Authentication
from vendor_service.money.standing import check_key, has_ended

_MOST_OFFERED = 100  # keys that a form lists to choose from
_WRONG = (ErrorCode.INVALID_API_KEY, ErrorCode.KEY_REVOKED)


@dataclass(frozen=True)
class SignedInCustomer:
    """Who is signed in to an account, and by which key and secret of it, if by any."""

    account: Account = field(repr=False)
    key: ApiKey | None = field(repr=False)
    secret_hash: str = field(repr=False)
    session_id: str
    csrf: str = field(repr=False)
    actor: str
    may_act: bool

    @property
    def name(self) -> str:
        """The account's name."""
        return self.account.name

    @property
    def account_id(self) -> str:
        """Which account it is."""
        return self.account.id

    @property
    def customer(self) -> Customer:
        """Who they are to the acts on their account."""
        return Customer(self.account, self.key, self.secret_hash, self.session_id)

    @property
    def view(self) -> View:
        """The part of the account that they see."""
        return self.customer.view

    @property
    def has_bought(self) -> bool:
        """Whether anything was ever sold to the account."""
        return bool(self.account.queries_used or self.account.spent_micros or self.account.buckets_covered)

    @property
    def ends_all_sessions(self) -> bool:
        """Whether they sign everybody out of the account; others sign out those of their own key."""
        return self.key is None or (self.may_act and self.view.is_whole)

    @property
    def may_buy(self) -> bool:
        """Whether they may have what is bought: by a key that may embed, or as somebody invited."""
        if self.account.status != "active":
            return False
        return self.key is None or bool({Scope.EMBED, Scope.ADMIN} & set(self.key.scopes.split()))


def identify(session: Session, row: ConsoleSession, csrf: str, now: int) -> SignedInCustomer | None:
    """The customer of a session, unless what it was begun by is good no longer.

    A key's session holds no longer than the key itself: until it is revoked, expires or gets another secret,
    or its project is archived.
    """
    account = session.get(Account, row.account_id)
    if account is None or not holds(session, row, now):
        return None
    active = account.status == "active"
    if row.key_id is None:
        actor = actors.invited(str(row.invitation_id))
        return SignedInCustomer(account, None, row.secret_hash, row.id, csrf, actor, active)
    key = session.get(ApiKey, row.key_id)
    if key is None:
        return None
    scopes = set(key.scopes.split())
    if not scopes & {Scope.READ_USAGE, Scope.ADMIN}:
        return None
    actor = actors.customer_key(key.id)
    return SignedInCustomer(
        account, key, row.secret_hash, row.id, csrf, actor, active and Scope.ADMIN in scopes
    )


def require_acting(who: SignedInCustomer) -> None:
    """Make sure that a customer may change something.

    Raises:
        APIError: `account_suspended` or `insufficient_scope`.
    """
    if who.account.status != "active":
        raise APIError(ErrorCode.ACCOUNT_SUSPENDED, "this account is suspended, and nothing can be changed")
    if not who.may_act:
        message = "you signed in with a key that may only read; changes take one with the scope admin"
        raise APIError(ErrorCode.INSUFFICIENT_SCOPE, message)


class CustomersDoor:
    """Signs customers in, and lets nobody try for ever.

    Who it is is looked up as for any request; the session begins in the `threads` of the account.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        seal: Seal,
        authentication: Authentication,
        threads: AccountThreads,
    ) -> None:
        self._database = database
        self._clock = clock
        self._seal = seal
        self._authentication = authentication
        self._threads = threads
        self._tries = WrongTries(what="key or invitation of the console")

    async def by_key(self, form: Fields, address: str) -> str:
        """Sign in with an API key; what the cookie has to have.

        Wrong secrets of one key count for themselves; see `OperatorAuthentication`.

        Raises:
            APIError: as of `Authentication.identify`, or `rate_limited`.
        """
        api_key = form.get("key")
        caller = await asyncio.to_thread(self._caller, api_key, address)
        return await self._threads.do(caller.account_id, self._begin, caller)

    def _caller(self, api_key: str, address: str) -> Caller:
        who = self._who_tries(address, ApiKey, id_of(api_key))
        self._tries.check(who)
        try:
            return self._authentication.identify(api_key, Scope.READ_USAGE)
        except APIError as error:
            if error.code in _WRONG:
                self._tries.count(who)
            raise

    def _begin(self, caller: Caller) -> str:
        with self._database.write() as session:
            lock_account(session, caller.account_id)  # as who ends all sessions of it
            check_key(session.get_one(ApiKey, caller.key_id), self._clock(), caller.secret_hash)
            return sessions.begin(
                session,
                self._seal,
                CUSTOMERS,
                self._clock(),
                secret_hash=caller.secret_hash,
                account_id=caller.account_id,
                key_id=caller.key_id,
            )

    async def by_invitation(self, form: Fields, address: str) -> str:
        """Sign in by an invitation, which is used up by that; what the cookie has to have.

        Wrong secrets of one invitation count for themselves, as those of a key.

        Raises:
            APIError: `not_found` for one that is not good, or not any more; or `rate_limited`.
        """
        code = form.get("code")
        who, account_id = await asyncio.to_thread(self._invited, code, address)
        cookie = None
        if account_id is not None:
            cookie = await self._threads.do(account_id, self._redeem, code)
        if cookie is None:
            self._tries.count(who)
            message = "this link was used already, or is too old; ask the vendor for another one"
            raise APIError(ErrorCode.NOT_FOUND, message)
        return cookie

    def _invited(self, code: str, address: str) -> tuple[str, str | None]:
        """Who tries an invitation, and to which account, if it is good."""
        who = self._who_tries(address, Invitation, invitations.id_of(code))
        self._tries.check(who)
        with self._database.read() as session:
            row = invitations.find(session, code, self._clock())
            return who, None if row is None else row.account_id

    def _redeem(self, code: str) -> str | None:
        with self._database.write() as session:
            actor = actors.invited(invitations.id_of(code) or "")
            row = invitations.redeem(Act(session, actor, self._clock), code)
            if row is None:
                return None
            return sessions.begin(
                session,
                self._seal,
                CUSTOMERS,
                self._clock(),
                secret_hash=row.secret_hash,
                account_id=row.account_id,
                invitation_id=row.id,
            )

    def _who_tries(self, address: str, what: type[ApiKey | Invitation], given_id: str | None) -> str:
        if given_id is None:
            return address
        with self._database.read() as session:
            return address if session.get(what, given_id) is None else f"{address} with the id {given_id}"


def labels_of(session: Session, who: SignedInCustomer, key_ids: Collection[str]) -> dict[str, str]:
    """What each of these keys is for, by its id; of those that they see."""
    theirs = who.view.rows(ApiKey)
    found = session.execute(select(ApiKey.id, ApiKey.label).where(theirs, ApiKey.id.in_(key_ids)))
    return {each.id: each.label for each in found}


def newest_labels(session: Session, who: SignedInCustomer) -> dict[str, str]:
    """The same of the keys that were made last, the newest first."""
    theirs = who.view.rows(ApiKey)
    found = select(ApiKey.id, ApiKey.label).where(theirs).order_by(ApiKey.created_at.desc(), ApiKey.id.desc())
    return {each.id: each.label for each in session.execute(found.limit(_MOST_OFFERED))}


def payers(session: Session, who: SignedInCustomer, now: int, key_id: str | None = None) -> list[ApiKey]:
    """The keys on which who asks may buy: their own, or any that they see for who may act.

    A key with limits or an end of its own buys on no other one, whose limits are not its own. Of many they
    are the one with which one signed in and those that were made last; or with a `key_id` that one.
    """
    own = None if who.key is None else who.key.id
    may_buy = or_(ApiKey.scopes.contains(Scope.EMBED), ApiKey.scopes.contains(Scope.ADMIN))
    theirs = who.view.rows(ApiKey)
    found = select(ApiKey).where(theirs, ~has_ended(now), may_buy)
    if not who.may_act or (who.key is not None and keys.is_limited(who.key)):
        found = found.where(ApiKey.id == own)
    if key_id is not None:
        found = found.where(ApiKey.id == key_id)
    order = (case((ApiKey.id == own, 0), else_=1), ApiKey.created_at.desc(), ApiKey.id.desc())
    return list(session.scalars(found.order_by(*order).limit(_MOST_OFFERED)))
