"""Authentication: an API key becomes a caller."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import update

from shared.errors import ErrorCode
from vendor_service.accounts.keys import Scope, verify_key
from vendor_service.clock import Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, ApiKey
from vendor_service.errors import APIError


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
            APIError: `invalid_api_key`, `key_revoked`, `account_suspended` or `insufficient_scope`.
        """
        now = self._clock()
        with self._database.read() as session:
            key = verify_key(session, api_key, now)
            if key is None:
                message = "this API key is not known here; check that it is complete"
                raise APIError(ErrorCode.INVALID_API_KEY, message)
            on_known(key)
            if key.revoked_at is not None:
                raise APIError(
                    ErrorCode.KEY_REVOKED, "this API key was revoked; ask the vendor for a new one"
                )
            account = session.get_one(Account, key.account_id)
            # A suspended account may read what it was charged, and nothing else.
            if account.status != "active" and scope not in (None, Scope.READ_USAGE):
                raise APIError(ErrorCode.ACCOUNT_SUSPENDED, "this account is suspended; ask the vendor why")
        if scope is not None and not {scope, Scope.ADMIN} & set(key.scopes.split()):
            message = f"this API key may not do this; it takes one with the scope {scope}"
            raise APIError(ErrorCode.INSUFFICIENT_SCOPE, message)
        with self._lock:
            self._last_used[key.id] = now
        return Caller(key.account_id, key.id, account, key)

    def record_use(self) -> None:
        """Write down when keys were last used: one transaction now and then, none for each request."""
        with self._lock:
            used, self._last_used = self._last_used, {}
        if used:
            with self._database.write() as session:
                for key_id, moment in sorted(used.items()):
                    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=moment))
