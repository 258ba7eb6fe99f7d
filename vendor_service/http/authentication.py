"""Authentication: the API key of a request becomes a caller.

`Authentication` knows the callers; the dependencies of routes and `buyer_of` ask it.
"""

import asyncio
import hashlib
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, TypeVar

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from vendor_service.accounts.callers import Caller
from vendor_service.accounts.keys import KEY, Scope
from vendor_service.clock import Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import ApiKey
from vendor_service.database.tables.base import hash_secret
from vendor_service.database.view import DEFAULT_ID
from vendor_service.database.working_set import standing
from vendor_service.errors import APIError
from vendor_service.money.standing import check, check_key

# How long a buyer is known without a look at the books, and how many of them are.
_REMEMBERED_SECONDS = 1.0
_MOST_REMEMBERED = 4096
# Keys of one transaction that notes their use: it holds their locks no longer than an admission does.
_AT_ONCE = 256

T = TypeVar("T")
Dependency = Callable[..., Awaitable[Caller]]
_Credentials = HTTPAuthorizationCredentials | None
_UNSENT = "send your API key as: Authorization: Bearer tk_..."


class Authentication:
    """Knows the callers by their keys, and when each key was last used. Thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._last_used: dict[str, int] = {}
        # By the hash of the whole key: until when, and from when on one request looks again for all others.
        self._buyers: dict[bytes, tuple[float, float, Caller]] = {}

    def recall(self, api_key: str) -> Caller | None:
        """The caller behind a key that was good for buying a moment ago; asks no database.

        It may be revoked, replaced or suspended since, and others may have used up its limits. So this is for
        what `Admission` checks once more; `Precheck` counts on these rows what it lets through meanwhile.
        Before the moment is over, one request is sent to look again. At its end all would be, and would wait
        for each other.
        """
        hashed, now = _hash(api_key), time.monotonic()
        with self._lock:
            until, again, caller = self._buyers.get(hashed, (0.0, 0.0, None))
            if caller is None or until < now:
                return None
            if again < now:
                self._buyers[hashed] = until, until, caller
                return None
            self._last_used[caller.key_id] = self._clock()
        return caller

    def identify(
        self,
        api_key: str,
        scope: Scope | None,
        on_known: Callable[[ApiKey], None] = lambda _: None,
    ) -> Caller:
        """The caller behind a key, which must have the `scope` if one is named.

        A suspended account may still read, which takes no scope or `usage:read`. `on_known` is told of the
        key as soon as it is found to be genuine, also where the caller is refused in the end.

        Raises:
            APIError: `invalid_api_key`, `key_revoked`, `key_expired`, `project_archived`,
                `account_suspended` or `insufficient_scope`.
        """
        now = self._clock()
        with self._database.read() as session:
            caller = verify_key(session, api_key, now)
        if caller is None:
            message = "this API key is not known here; check that it is complete"
            raise APIError(ErrorCode.INVALID_API_KEY, message)
        account, key = caller.account, caller.key
        on_known(key)
        check_key(key, now)
        # A suspended account may read what it was charged, and nothing else.
        if account.status != "active" and scope not in (None, Scope.READ_USAGE):
            raise APIError(ErrorCode.ACCOUNT_SUSPENDED, "this account is suspended; ask the vendor why")
        if scope is not None and not {scope, Scope.ADMIN} & set(key.scopes.split()):
            message = f"this API key may not do this; it takes one with the scope {scope}"
            raise APIError(ErrorCode.INSUFFICIENT_SCOPE, message)
        with self._lock:
            self._last_used[key.id] = now
            if scope == Scope.EMBED:
                self._remember(api_key, caller)
        return caller

    def while_good(self, caller: Caller, work: Callable[[], T]) -> T:
        """Do work for a caller who waited for a thread, unless their key or its secret has ended meanwhile.

        Raises:
            APIError: what `standing.check` raises, or the work itself.
        """
        with self._database.read() as session:
            found = standing(session.connection(), caller.key_id)
        if found is not None:
            check(*found, caller.secret_hash, self._clock())
        return work()

    def _remember(self, api_key: str, caller: Caller) -> None:
        now = time.monotonic()
        if len(self._buyers) >= _MOST_REMEMBERED:
            left = {hashed: each for hashed, each in self._buyers.items() if each[0] >= now}
            self._buyers = left if len(left) < _MOST_REMEMBERED else {}
        self._buyers[_hash(api_key)] = now + _REMEMBERED_SECONDS, now + _REMEMBERED_SECONDS / 2, caller

    def record_use(self) -> None:
        """Write down when keys were last used: one transaction now and then, none for each request.

        A key that another transaction has locked waits for the next time, and nothing waits for it.
        """
        with self._lock:
            used = sorted(self._last_used.items())
        for start in range(0, len(used), _AT_ONCE):
            self._write(dict(used[start : start + _AT_ONCE]))

    def _write(self, used: Mapping[str, int]) -> None:
        mine = select(ApiKey.id).where(ApiKey.id.in_(list(used))).order_by(ApiKey.id)
        with self._database.write() as session:
            free = session.scalars(mine.with_for_update(key_share=True, skip_locked=True)).all()
            if free:
                session.execute(update(ApiKey), [{"id": each, "last_used_at": used[each]} for each in free])
        with self._lock:
            for each in free:
                if self._last_used.get(each) == used[each]:
                    del self._last_used[each]


def verify_key(session: Session, api_key: str, now: int) -> Caller | None:
    """The caller behind a genuine key, revoked or not; `None` for anything else.

    The secret before the last rotation is genuine until its grace ends.
    """
    match = KEY.fullmatch(api_key)
    found = match and standing(session.connection(), match[1])
    if match is None or found is None:
        return None
    (account, key), hashed = found, hash_secret(match[2])
    return Caller(account.id, key.id, account, key, hashed) if key.is_secret(hashed, now) else None


def requiring(authentication: Authentication, scope: Scope | None = None) -> Dependency:
    """Make the dependency that admits only requests with a good `Authorization: Bearer tk_...`.

    What it returns raises what `Authentication.identify` does.
    """
    bearer = HTTPBearer(auto_error=False, description="An API key, `tk_...`")

    async def authenticate(
        request: Request, credentials: Annotated[_Credentials, Security(bearer)]
    ) -> Caller:
        if credentials is None:
            raise APIError(ErrorCode.INVALID_API_KEY, _UNSENT)
        return await _identify(authentication, request, credentials.credentials, scope)

    return authenticate


def welcoming(authentication: Authentication) -> Callable[..., Awaitable[Caller | None]]:
    """Make the dependency of what anybody may ask: the caller, or `None` for one who sends no key.

    A key that is sent must be good; see `requiring` for what is raised otherwise.
    """
    bearer = HTTPBearer(auto_error=False, description="An API key, `tk_...`; optional here")

    async def recognise(
        request: Request, credentials: Annotated[_Credentials, Security(bearer)]
    ) -> Caller | None:
        if credentials is None:
            return None
        return await _identify(authentication, request, credentials.credentials, None)

    return recognise


async def buyer_of(request: Request, authentication: Authentication) -> Caller:
    """Identify the buyer. A key that was good a moment ago is checked once more when the price is held.

    Raises:
        APIError: as of `Authentication.identify`.
    """
    scheme, _, api_key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not api_key:
        raise APIError(ErrorCode.INVALID_API_KEY, _UNSENT)
    caller = authentication.recall(api_key)
    if caller is None:
        return await _identify(authentication, request, api_key, Scope.EMBED)
    _note(request, caller.key)
    return caller


async def _identify(
    authentication: Authentication, request: Request, api_key: str, scope: Scope | None
) -> Caller:
    return await asyncio.to_thread(authentication.identify, api_key, scope, partial(_note, request))


def _note(request: Request, key: ApiKey) -> None:
    """Tell the log, and the counts of refusals, who asks; those who are refused as well."""
    state = request.state
    state.account_id, state.project_id, state.key_id = key.account_id, key.project_id or DEFAULT_ID, key.id


def _hash(api_key: str) -> bytes:
    return hashlib.sha256(api_key.encode()).digest()
