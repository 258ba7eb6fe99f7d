"""Authentication: a token becomes an operator, and wrong ones may not be tried for ever."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from shared.errors import ErrorCode
from vendor_service.acts import operators
from vendor_service.acts.act import OperatorScope, check_scope
from vendor_service.audit import actors
from vendor_service.clock import SECOND, Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import OperatorToken
from vendor_service.errors import APIError

# So many wrong tries at once, and one more each so many seconds.
_TRIES, _SECONDS_A_TRY = 10, 6.0
_MOST_REMEMBERED = 4096
# How old the note of a token's last use may be.
_NOTED_EVERY = 60 * SECOND

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Operator:
    """The operator who asks: a token, its name, and its scopes."""

    token_id: str
    name: str
    scopes: frozenset[str]

    @property
    def actor(self) -> str:
        """How the audit log names it."""
        return actors.operator(self.token_id, self.name)


class WrongTries:
    """Counts wrong tokens by who tried them. Thread-safe; it remembers the last few thousand.

    `what` is tried is for the log.
    """

    def __init__(self, steady: Callable[[], float] = time.monotonic, what: str = "operator's token") -> None:
        self._steady = steady
        self._what = what
        self._lock = threading.Lock()
        # When the tries that were made would all be forgotten.
        self._until: dict[str, float] = {}

    def check(self, who: str) -> None:
        """Make sure that they may try.

        Raises:
            APIError: `rate_limited`; they tried too often.
        """
        with self._lock:
            ahead = self._until.get(who, 0.0) - self._steady()
        excess = ahead - (_TRIES - 1) * _SECONDS_A_TRY
        if excess > 0:
            message = "too many wrong tokens were tried from here; wait before another try"
            raise APIError(ErrorCode.RATE_LIMITED, message, retry_after=max(1, round(excess + 0.5)))

    def count(self, who: str) -> None:
        """Count a wrong try."""
        now = self._steady()
        with self._lock:
            before = self._until.pop(who, 0.0)  # who tried last stands last
            self._until[who] = min(max(before, now) + _SECONDS_A_TRY, now + _TRIES * _SECONDS_A_TRY)
            if len(self._until) > _MOST_REMEMBERED:
                del self._until[next(iter(self._until))]
        if before <= now:
            _log.warning("a wrong %s was tried from %s", self._what, who)


class OperatorAuthentication:
    """Knows operators by their tokens. Thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._tries = WrongTries()

    def identify(self, token: str, scope: OperatorScope, address: str) -> Operator:
        """The operator behind a token, which must have the `scope`; `address` is where it came from.

        Wrong secrets of one token count for themselves, so that who knows no token's id keeps nobody out who
        shares an address, that of a proxy say.

        Raises:
            APIError: `invalid_api_key`, `key_revoked`, `insufficient_scope` or `rate_limited`.
        """
        now, parts = self._clock(), operators.split(token)
        row = None
        if parts is not None:
            with self._database.read() as session:
                row = session.get(OperatorToken, parts[0])
        who = address if row is None else f"{address} with the id {row.id}"
        self._tries.check(who)
        if parts is None or row is None or not row.is_secret(parts[1], now):
            self._tries.count(who)
            raise APIError(
                ErrorCode.INVALID_API_KEY, "this token is not known here; check that it is complete"
            )
        if row.revoked_at is not None:
            raise APIError(ErrorCode.KEY_REVOKED, "this token was revoked")
        check_scope(row.scopes.split(), scope)
        if now - (row.last_used_at or 0) > _NOTED_EVERY:
            self._note_use(row.id, now)
        return Operator(row.id, row.name, frozenset(row.scopes.split()))

    def _note_use(self, token_id: str, now: int) -> None:
        with suppress(APIError), self._database.write(lock_seconds=1) as session:  # the next use is noted
            session.get_one(OperatorToken, token_id).last_used_at = now
