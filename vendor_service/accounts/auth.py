"""Who is asking: the dependencies that turn an API key into a caller."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import update

from shared.errors import ErrorCode
from vendor_service.accounts.keys import Scope, verify_key
from vendor_service.clock import Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, ApiKey
from vendor_service.errors import Refusal

Dependency = Callable[..., Awaitable["Caller"]]


@dataclass(frozen=True)
class Caller:
    """The account that asks, and the key with which it does; both rows as they were when it came."""

    account_id: str
    key_id: str
    account: Account = field(repr=False, compare=False)
    key: ApiKey = field(repr=False, compare=False)


class Authentication:
    """Knows the callers by their keys, and when each key was last used. Thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._last_used: dict[str, int] = {}

    def requiring(self, scope: Scope | None = None) -> Dependency:
        """Make the dependency that admits only requests with a good `Authorization: Bearer tk_...`.

        The key must have the `scope`, if one is named; a suspended account may still read, which takes none
        or `usage:read`. What it returns raises `Refusal`: `invalid_api_key`, `key_revoked`,
        `account_suspended` or `insufficient_scope`.
        """
        bearer = HTTPBearer(auto_error=False, description="An API key, `tk_...`")

        async def authenticate(
            request: Request,
            credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
        ) -> Caller:
            if credentials is None:
                raise Refusal(ErrorCode.INVALID_API_KEY, "send your API key as: Authorization: Bearer tk_...")
            return await asyncio.to_thread(self._identify, credentials.credentials, scope, request)

        return authenticate

    def welcoming(self) -> Callable[..., Awaitable["Caller | None"]]:
        """Make the dependency of what anybody may ask: the caller, or `None` for one who sends no key.

        A key that is sent must be good; see `requiring` for what is raised otherwise.
        """
        bearer = HTTPBearer(auto_error=False, description="An API key, `tk_...`; optional here")

        async def recognise(
            request: Request,
            credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
        ) -> Caller | None:
            if credentials is None:
                return None
            return await asyncio.to_thread(self._identify, credentials.credentials, None, request)

        return recognise

    def record_use(self) -> None:
        """Write down when keys were last used: one transaction now and then, none for each request."""
        with self._lock:
            used, self._last_used = self._last_used, {}
        if used:
            with self._database.write() as session:
                for key_id, moment in sorted(used.items()):
                    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=moment))

    def _identify(self, api_key: str, scope: Scope | None, request: Request | None = None) -> Caller:
        now = self._clock()
        with self._database.read() as session:
            key = verify_key(session, api_key, now)
            if key is None:
                message = "this API key is not known here; check that it is complete"
                raise Refusal(ErrorCode.INVALID_API_KEY, message)
            if request is not None:  # for the log, which names them in refusals as well
                request.state.account_id, request.state.key_id = key.account_id, key.id
            if key.revoked_at is not None:
                raise Refusal(ErrorCode.KEY_REVOKED, "this API key was revoked; ask the vendor for a new one")
            account = session.get_one(Account, key.account_id)
            # A suspended account may read what it was charged, and nothing else.
            if account.status != "active" and scope not in (None, Scope.READ_USAGE):
                raise Refusal(ErrorCode.ACCOUNT_SUSPENDED, "this account is suspended; ask the vendor why")
        if scope is not None and not {scope, Scope.ADMIN} & set(key.scopes.split()):
            message = f"this API key may not do this; it takes one with the scope {scope}"
            raise Refusal(ErrorCode.INSUFFICIENT_SCOPE, message)
        with self._lock:
            self._last_used[key.id] = now
        return Caller(key.account_id, key.id, account, key)
