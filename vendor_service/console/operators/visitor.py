"""Operators who are signed in, by a token."""

import asyncio
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from vendor_service.acts import operators
from vendor_service.acts.act import OperatorScope, check_scope
from vendor_service.acts.authentication import OperatorAuthentication
from vendor_service.audit import actors
from vendor_service.clock import Clock
from vendor_service.console import sessions
from vendor_service.console.forms import Fields
from vendor_service.console.seal import Seal
from vendor_service.console.sessions import OPERATORS
from vendor_service.database.session import Database
from vendor_service.database.tables import ConsoleSession, OperatorToken


@dataclass(frozen=True)
class SignedInOperator:
    """An operator, by the token with which they signed in."""

    token: OperatorToken = field(repr=False)
    session_id: str
    csrf: str = field(repr=False)

    @property
    def name(self) -> str:
        """Whose token it is."""
        return self.token.name

    @property
    def actor(self) -> str:
        """How the audit log names it."""
        return actors.operator(self.token.id, self.token.name)

    @property
    def scopes(self) -> frozenset[str]:
        """The permissions of the token."""
        return frozenset(self.token.scopes.split())

    @property
    def may_act(self) -> bool:
        """Whether the token has another scope than reading."""
        return bool(self.scopes - {OperatorScope.READ})

    def require(self, scope: OperatorScope) -> None:
        """Make sure that the token may do what takes this scope; raises what `check_scope` does."""
        check_scope(self.scopes, scope)


def identify(session: Session, row: ConsoleSession, csrf: str, now: int) -> SignedInOperator | None:
    """The operator of a session, unless the token is good no longer."""
    token = session.get(OperatorToken, row.token_id)
    if token is None or token.revoked_at is not None or not token.is_secret(row.secret_hash, now):
        return None
    return SignedInOperator(token, row.id, csrf)


class OperatorsDoor:
    """Signs operators in. Thread-safe."""

    def __init__(
        self, database: Database, clock: Clock, seal: Seal, authentication: OperatorAuthentication
    ) -> None:
        self._database = database
        self._clock = clock
        self._seal = seal
        self._authentication = authentication

    async def by_token(self, form: Fields, address: str) -> str:
        """Sign in with a token; what the cookie has to have.

        Raises what `OperatorAuthentication.identify` does.
        """
        return await asyncio.to_thread(self._begin, form.get("token"), address)

    def _begin(self, token: str, address: str) -> str:
        operator = self._authentication.identify(token, OperatorScope.READ, address)
        parts = operators.split(token)
        assert parts is not None
        with self._database.write() as session:
            return sessions.begin(
                session,
                self._seal,
                OPERATORS,
                self._clock(),
                secret_hash=parts[1],
                token_id=operator.token_id,
            )
