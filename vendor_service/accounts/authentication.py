"""Authentication: an API key becomes a caller."""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping

from sqlalchemy import select, update

from shared.errors import ErrorCode
from vendor_service.accounts.callers import Caller
from vendor_service.accounts.keys import Scope, secret_hash, verify_key
from vendor_service.clock import Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import ApiKey
from vendor_service.errors import APIError
from vendor_service.money.limits import check_key

# How long a buyer is known without a look at the books, and how many of them are.
_REMEMBERED_SECONDS = 1.0
_MOST_REMEMBERED = 4096
# Keys of one transaction that notes their use: it holds their locks no longer than an admission does.
_AT_ONCE = 256


class Authentication:
    """Knows the callers by their keys, and when each key was last used. Thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._last_used: dict[str, int] = {}
        # By the hash of the whole key, with the time until when.
        self._buyers: dict[bytes, tuple[float, Caller]] = {}

    def recall(self, api_key: str) -> Caller | None:
        """The caller behind a key that was good for buying a moment ago; asks no database.

        It may be revoked, replaced or suspended since, and others may have used up its limits. So this is for
        what `Admission` checks once more; `Precheck` counts on these rows what it lets through meanwhile.
        """
        until, caller = self._buyers.get(_hash(api_key), (0.0, None))
        if caller is None or until < time.monotonic():
            return None
        with self._lock:
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
            found = verify_key(session, api_key, now)
        if found is None:
            message = "this API key is not known here; check that it is complete"
            raise APIError(ErrorCode.INVALID_API_KEY, message)
        account, key = found
        on_known(key)
        check_key(key, now)
        # A suspended account may read what it was charged, and nothing else.
        if account.status != "active" and scope not in (None, Scope.READ_USAGE):
            raise APIError(ErrorCode.ACCOUNT_SUSPENDED, "this account is suspended; ask the vendor why")
        if scope is not None and not {scope, Scope.ADMIN} & set(key.scopes.split()):
            message = f"this API key may not do this; it takes one with the scope {scope}"
            raise APIError(ErrorCode.INSUFFICIENT_SCOPE, message)
        caller = Caller(key.account_id, key.id, account, key, secret_hash(api_key))
        with self._lock:
            self._last_used[key.id] = now
            if scope == Scope.EMBED:
                self._remember(api_key, caller)
        return caller

    def _remember(self, api_key: str, caller: Caller) -> None:
        now = time.monotonic()
        if len(self._buyers) >= _MOST_REMEMBERED:
            left = {hashed: each for hashed, each in self._buyers.items() if each[0] >= now}
            self._buyers = left if len(left) < _MOST_REMEMBERED else {}
        self._buyers[_hash(api_key)] = (now + _REMEMBERED_SECONDS, caller)

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


def _hash(api_key: str) -> bytes:
    return hashlib.sha256(api_key.encode()).digest()
